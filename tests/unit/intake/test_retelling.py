"""Events told anew from a stored response are the API's own, for every kind of item."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from services.intake.streaming.retelling import retell
from tests.unit.worker.runs import events_of, script_events
from tests.upstream.scripts import HOSTED, SCRIPTS

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WITHOUT_END = {"error"}


def stored(script: str) -> dict[str, Any]:
    return dict(script_events(f"script:{script}")[-1]["response"])


def told(
    response: dict[str, Any], last: int | None = None, *, whole: bool = False
) -> list[dict[str, Any]]:
    blocks = list(retell(response, last, whole=whole))
    events = events_of(b"".join(block for block, _ in blocks))
    assert [number for _, number in blocks] == [event["sequence_number"] for event in events]
    return events


@pytest.mark.parametrize("script", sorted({*SCRIPTS, *HOSTED} - WITHOUT_END))
def test_every_kind_of_item_is_told_in_the_api_s_own_events(script: str) -> None:
    response = stored(script)
    events = told(response)
    for event in events:
        EVENT.validate_python(event)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == response["output"]
    assert events[-1]["response"] == response


def test_texts_come_whole() -> None:
    response = stored("unicode")
    events = told(response)
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text == response["output"][0]["content"][0]["text"]


def test_the_end_keeps_its_number_so_that_whoever_saw_more_still_gets_it() -> None:
    events = told(stored("text"), last=500)
    assert events[-1]["sequence_number"] == 500
    assert events[-2]["sequence_number"] < 500


@pytest.mark.parametrize("script", sorted({*SCRIPTS, *HOSTED} - WITHOUT_END))
@pytest.mark.parametrize("more", [0, 1, 3, 7, 400])
def test_who_has_seen_nothing_is_told_as_many_events_as_there_were(script: str, more: int) -> None:
    response = stored(script)
    short = told(response)
    last = len(short) - 1 + more
    events = told(response, last, whole=True)
    for event in events:
        EVENT.validate_python(event)
    numbers = [event["sequence_number"] for event in events]
    characters = sum(len(e["delta"]) - 1 for e in short if e.get("delta"))
    if more <= characters:
        assert numbers == list(range(last + 1))
    assert numbers[-1] == last
    for kind in {event["type"] for event in events if event["type"].endswith(".delta")}:
        whole = "".join(event["delta"] for event in short if event["type"] == kind)
        assert "".join(event["delta"] for event in events if event["type"] == kind) == whole


def test_a_number_that_is_too_small_does_not_break_the_order() -> None:
    numbers = [event["sequence_number"] for event in told(stored("text"), last=1)]
    assert numbers == sorted(set(numbers))


def test_a_cancelled_response_just_ends() -> None:
    events = told(stored("text") | {"status": "cancelled", "output": []})
    assert [e["type"] for e in events] == ["response.created", "response.in_progress"]
