"""Feeding scripted chunks to a turn and checking what comes out, for the tests beside it."""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from openai.types.responses import ResponseOutputItem, ResponseStreamEvent, ResponseUsage
from pydantic import TypeAdapter

from services.worker.chat.stream import ChatTurn
from services.worker.chat.turn import Event, TurnEnd

Chunk = dict[str, Any]
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseOutputItem)


def delta(**fields: Any) -> Chunk:
    """A chunk whose only choice has these fields in its delta."""
    choice = {"index": 0, "delta": fields, "logprobs": None, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def finished(reason: str | None = "stop", **fields: Any) -> Chunk:
    """A last chunk."""
    chunk = delta(**fields)
    chunk["choices"][0]["finish_reason"] = reason
    return chunk


def call(
    index: int | None,
    arguments: Any = None,
    *,
    name: str | None = None,
    call_id: str | None = None,
) -> Chunk:
    """A chunk with one delta of `tool_calls`, with only what is given in it."""
    function = {"name": name, "arguments": arguments}
    piece: dict[str, Any] = {
        "function": {key: value for key, value in function.items() if value is not None}
    }
    if index is not None:
        piece["index"] = index
    if call_id is not None:
        piece["id"] = call_id
    return delta(tool_calls=[piece])


def run(
    chunks: Iterable[Chunk], request: dict[str, Any] | None = None
) -> tuple[list[Event], TurnEnd]:
    """Feed the chunks and finish; every event and item is checked against the SDK's models."""
    numbers: Iterator[int] = count()
    turn = ChatTurn(new_id=lambda prefix: f"{prefix}_{next(numbers)}", request=request or {})
    events = [event for chunk in chunks for event in turn.feed(chunk)]
    last, end = turn.finish()
    events += last
    check(events, end)
    return events, end


def check(events: list[Event], end: TurnEnd) -> None:
    """Check what holds for every turn: shapes, order, indexes, deltas that add up."""
    for number, event in enumerate(events):
        _EVENT.validate_python(event | {"sequence_number": number})
    for item in end.output:
        _ITEM.validate_python(item)
    if end.usage is not None:
        ResponseUsage.model_validate(end.usage)
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(end.output)))
    for index, item in enumerate(end.output):
        _check_item([event for event in events if event["output_index"] == index], item)


def _check_item(events: list[Event], item: dict[str, Any]) -> None:
    opening, closing = events[0], events[-1]
    assert opening["type"] == "response.output_item.added"
    assert closing["type"] == "response.output_item.done"
    assert closing["item"] == item
    assert opening["item"]["id"] == item["id"]
    assert {event["item_id"] for event in events[1:-1]} <= {item["id"]}
    deltas: dict[int, str] = {}
    for event in events[1:-1]:
        place = event.get("content_index", 0)
        if event["type"].endswith(".delta"):
            deltas[place] = deltas.get(place, "") + event["delta"]
        elif event["type"].endswith(("text.done", "refusal.done", "arguments.done", "input.done")):
            names = ("text", "refusal", "arguments", "input")
            told = next(event[name] for name in names if name in event)
            assert told == deltas.get(place, "")
    for place, part in enumerate(item.get("content", ())):
        assert part.get("text", part.get("refusal")) == deltas.get(place, "")


def types(events: list[Event]) -> list[str]:
    """The types of the events without their common prefix, repeated deltas once."""
    names = [event["type"].removeprefix("response.") for event in events]
    return [
        name
        for number, name in enumerate(names)
        if not (name.endswith("delta") and number and names[number - 1] == name)
    ]
