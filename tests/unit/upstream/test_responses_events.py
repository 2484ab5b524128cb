"""Every event of every script is what the openai package types it as, and they add up."""

from functools import cache
from typing import Any, get_args

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.upstream import responses
from tests.upstream.answers import Json
from tests.upstream.dialogue import from_responses
from tests.upstream.language import parse
from tests.upstream.scripts import HOSTED, SCRIPTS, answer_for
from tests.upstream.turn import Turn

ALL_SCRIPTS = sorted((*SCRIPTS, *HOSTED))
TERMINAL = {"response.completed", "response.incomplete", "response.failed", "error"}
ADAPTER: TypeAdapter[BaseModel] = TypeAdapter(ResponseStreamEvent)
# The API sends them, but the package does not type them.
UNTYPED = {"store", "frequency_penalty", "presence_penalty"}
# The field of each `done` event that repeats what its deltas said.
DELTA_FAMILIES = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "reasoning_summary_text": "text",
    "function_call_arguments": "arguments",
    "mcp_call_arguments": "arguments",
    "custom_tool_call_input": "input",
    "code_interpreter_call_code": "code",
}


def turn_for(text: str, **params: Any) -> Turn:
    body = {"model": "gpt-5.1", "input": text, **params}
    dialogue = from_responses(body)
    return responses.render(answer_for(dialogue, parse(text)), dialogue, body, "resp_1")


@cache
def script_events(name: str) -> list[Json]:
    return turn_for(f"script:{name}").events


def extras(value: object) -> set[str]:
    """The names of all fields, however deep, that no model declares."""
    if isinstance(value, BaseModel):
        own = set(value.model_extra or ())
        return own.union(*(extras(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, list):
        return set().union(*map(extras, value))
    return set()


def rebuilt(events: list[Json]) -> list[Json]:
    """The output that the events describe, from `done` events alone."""
    done = [event for event in events if event["type"] == "response.output_item.done"]
    return [event["item"] for event in sorted(done, key=lambda event: event["output_index"])]


def joined(events: list[Json], type_: str, field: str = "delta") -> dict[tuple[Any, ...], str]:
    """The deltas of that type joined per item and part."""
    texts: dict[tuple[Any, ...], str] = {}
    for event in events:
        if event["type"] == type_:
            place = (event["item_id"], event.get("content_index"), event.get("summary_index"))
            texts[place] = texts.get(place, "") + event[field]
    return texts


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_every_event_validates_strictly_and_has_no_unknown_field(name: str) -> None:
    for event in script_events(name):
        validated = ADAPTER.validate_python(event, strict=True)
        assert validated.type == event["type"]  # type: ignore[attr-defined]  # of the union
        assert extras(validated) <= UNTYPED, event


def test_the_scripts_cover_every_event_type_of_the_package() -> None:
    union = get_args(get_args(ResponseStreamEvent)[0])
    typed = {get_args(variant.model_fields["type"].annotation)[0] for variant in union}
    sent = {event["type"] for name in ALL_SCRIPTS for event in script_events(name)}
    assert sent == typed


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_sequence_numbers_are_contiguous_and_the_stream_ends_once(name: str) -> None:
    events = script_events(name)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert [event["type"] in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_items_open_and_close_in_order_with_consistent_indexes(name: str) -> None:
    open_items: dict[int, str] = {}
    closed = 0
    for event in script_events(name):
        index: int = event.get("output_index", -1)
        if event["type"] == "response.output_item.added":
            assert index == len(open_items) + closed
            open_items[index] = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert open_items.pop(index) == event["item"]["id"]
            closed += 1
        elif index >= 0:
            assert event.get("item_id", open_items[index]) == open_items[index]
    assert not open_items


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_the_final_response_is_what_the_events_built(name: str) -> None:
    turn = turn_for(f"script:{name}")
    final = turn.events[-1].get("response", {"output": turn.output})
    assert final["output"] == rebuilt(turn.events)
    ids = [item["id"] for item in final["output"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_deltas_join_to_what_done_events_say(name: str) -> None:
    events = script_events(name)
    for family, field in DELTA_FAMILIES.items():
        deltas = joined(events, f"response.{family}.delta")
        done = joined(events, f"response.{family}.done", field)
        assert deltas == {place: text for place, text in done.items() if text}


def test_the_message_of_the_final_response_carries_the_streamed_text() -> None:
    events = turn_for("say: one two  three").events
    response = Response.model_validate(events[-1]["response"])
    assert response.output_text == "one two  three"
    assert list(joined(events, "response.output_text.delta").values()) == ["one two  three"]


def test_usage_counts_words_of_input_and_output() -> None:
    turn = turn_for("say: one two three", instructions="be brief")
    usage = turn.events[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (6, 3, 9)


def test_usage_counts_reasoning_as_part_of_the_output() -> None:
    usage = turn_for("script:reasoning").events[-1]["response"]["usage"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]


def test_usage_can_be_set_number_by_number() -> None:
    text = 'say: hi ; usage: {"input_tokens": 1000, "cached_tokens": 400}'
    usage = turn_for(text).events[-1]["response"]["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == 400
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (1000, 1, 1001)


def test_log_probabilities_come_when_the_request_includes_them() -> None:
    events = turn_for(
        "say: hi you", include=["message.output_text.logprobs"], top_logprobs=2
    ).events
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [delta["logprobs"][0]["token"] for delta in deltas] == ["hi", " you"]
    part = events[-1]["response"]["output"][0]["content"][0]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2, 2]


def test_interleaved_calls_mix_the_deltas_of_two_items() -> None:
    events = turn_for("script:interleaved_calls").events
    family = "response.function_call_arguments.delta"
    order = [event["output_index"] for event in events if event["type"] == family]
    assert order[:4] == [0, 1, 0, 1]


def test_the_parameters_of_the_request_come_back_in_the_response() -> None:
    response = turn_for("say: hi", metadata={"a": "b"}, temperature=0.2).events[-1]["response"]
    assert (response["metadata"], response["temperature"]) == ({"a": "b"}, 0.2)
