"""What must hold of every stream and response, whoever the provider is."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

Json = dict[str, Any]
EVENT: TypeAdapter[BaseModel] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[BaseModel] = TypeAdapter(ResponseItem)
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
# The API sends them, but the package does not type them.
UNTYPED = frozenset({"store", "frequency_penalty", "presence_penalty"})
_TOLD_BY_DELTAS = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_text": "text",
    "response.reasoning_summary_text": "text",
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
}


def assert_typed(validated: BaseModel) -> None:
    """Nothing in it is unknown to the package's models."""
    assert _extras(validated) <= UNTYPED


def assert_response(response: Json) -> None:
    """It is a response as the package types it, its items have ids of their own."""
    assert_typed(Response.model_validate(response, strict=True))
    assert response["id"].startswith("resp_")
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids)


def assert_stream(events: list[Json]) -> None:
    """Whole, in order, and adding up to its own end."""
    for event in events:
        validated = EVENT.validate_python(event, strict=True)
        assert validated.model_dump()["type"] == event["type"]
        assert_typed(validated)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert [event["type"] in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    _assert_items(events)
    _assert_deltas(events)


def _assert_items(events: list[Json]) -> None:
    """Items open in the order of their indexes, and only open ones are told about."""
    opened: dict[int, str] = {}
    closed: dict[int, Json] = {}
    for event in events:
        index = event.get("output_index")
        if index is None:
            continue
        if event["type"] == "response.output_item.added":
            assert index == len(opened)
            opened[index] = event["item"]["id"]
        assert index not in closed
        told = event["item"]["id"] if "item" in event else event.get("item_id", opened[index])
        assert told == opened[index]
        if event["type"] == "response.output_item.done":
            closed[index] = event["item"]
    final = events[-1]["response"]
    if final["status"] == "failed":
        # What was under way when it failed is kept without its end.
        assert [item["id"] for item in final["output"]] == list(opened.values())
    else:
        assert final["output"] == [closed[index] for index in opened]


def _assert_deltas(events: list[Json]) -> None:
    """What was told in pieces is what was told at the end."""
    for family, field in _TOLD_BY_DELTAS.items():
        pieces: dict[tuple[Any, ...], str] = {}
        for event in events:
            place = (event.get("item_id"), event.get("content_index"), event.get("summary_index"))
            if event["type"] == f"{family}.delta":
                pieces[place] = pieces.get(place, "") + event["delta"]
            elif event["type"] == f"{family}.done":
                assert pieces.pop(place, "") == event[field]
        assert not pieces or events[-1]["type"] == "response.failed"


def _extras(value: object) -> set[str]:
    """The names of all fields, however deep, that no model declares."""
    if isinstance(value, BaseModel):
        own = set(value.model_extra or ())
        return own.union(*(_extras(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, list):
        return set().union(*map(_extras, value))
    return set()
