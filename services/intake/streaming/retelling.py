"""The events of a finished response, told anew from its object once the log has dropped them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

Event = dict[str, Any]

_PART_EVENTS = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning_text": ("response.reasoning_text", "text"),
}
_CALL_EVENTS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "mcp_call": ("response.mcp_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}
_STATE_EVENTS = {
    "web_search_call": "response.web_search_call",
    "file_search_call": "response.file_search_call",
    "code_interpreter_call": "response.code_interpreter_call",
    "image_generation_call": "response.image_generation_call",
    "mcp_list_tools": "response.mcp_list_tools",
}


def retell(
    response: Event, last_number: int | None, *, whole: bool = False
) -> Iterator[tuple[bytes, int]]:
    """Yield (event as SSE bytes, sequence number).

    The last event has the number it had when it was first sent, so that a client which saw part of
    the original stream still gets the end. For one that saw nothing (`whole`) texts are told in so
    many deltas that the numbers have no gap, as far as their characters reach; else each text is
    one delta, since other pieces would not fit those that were seen.
    """
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    begun.update(error=None, incomplete_details=None, completed_at=None)
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(response.get("output") or []):
        events += _item(index, item)
    if whole and last_number is not None:
        events = _in_pieces(events, last_number - len(events))
    for number, event in enumerate(events):
        yield _encode(event, number), number
    if response["status"] == "cancelled":
        # The API has no event for it: such a stream just ends.
        return
    final = max(len(events), last_number if last_number is not None else 0)
    end = {"type": f"response.{response['status']}", "response": response}
    yield _encode(end, final), final


def _in_pieces(events: list[Event], more: int) -> list[Event]:
    """Return the same events with up to `more` deltas added, the longest texts in most pieces."""
    left = sum(len(event["delta"]) for event in events if _is_delta(event))
    told: list[Event] = []
    for event in events:
        text = event["delta"] if _is_delta(event) else ""
        if not text:
            told.append(event)
            continue
        added = max(0, min(len(text) - 1, -(-more * len(text) // left)))
        more, left = more - added, left - len(text)
        size, longer = divmod(len(text), added + 1)
        begin = 0
        for piece in range(added + 1):
            end = begin + size + (piece < longer)
            told.append({**event, "delta": text[begin:end]})
            begin = end
    return told


def _is_delta(event: Event) -> bool:
    return str(event["type"]).endswith(".delta")


def _encode(event: Event, number: int) -> bytes:
    numbered = {"type": event["type"], "sequence_number": number, **event}
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(numbered))


def _item(index: int, item: dict[str, Any]) -> list[Event]:
    kind = item.get("type", "")
    place = {"output_index": index, "item_id": item.get("id")}
    opened = {**item, "status": "in_progress"} if "status" in item else dict(item)
    inner: list[Event] = []
    if kind in ("message", "reasoning"):
        opened["content"] = []
        for at, part in enumerate(item.get("content") or []):
            inner += _part({**place, "content_index": at}, part)
        if kind == "reasoning":
            opened["summary"] = []
            for at, part in enumerate(item.get("summary") or []):
                inner += _summary({**place, "summary_index": at}, part)
    elif kind in _CALL_EVENTS:
        prefix, field = _CALL_EVENTS[kind]
        text = item.get(field) or ""
        opened[field] = ""
        inner.append({"type": f"{prefix}.delta", **place, "delta": text})
        inner.append({"type": f"{prefix}.done", **place, field: text})
        if kind == "function_call":
            inner[-1]["name"] = item.get("name")
        if kind == "mcp_call":
            failed = item.get("error") is not None
            opened.update(output=None, error=None)
            inner.insert(0, {"type": "response.mcp_call.in_progress", **place})
            inner.append(
                {"type": f"response.mcp_call.{'failed' if failed else 'completed'}", **place}
            )
    elif kind in _STATE_EVENTS:
        inner = [
            {"type": f"{_STATE_EVENTS[kind]}.{state}", **place}
            for state in ("in_progress", "completed")
        ]
    return [
        {"type": "response.output_item.added", "output_index": index, "item": opened},
        *inner,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _part(place: dict[str, Any], part: dict[str, Any]) -> list[Event]:
    known = _PART_EVENTS.get(part.get("type", ""))
    if known is None:
        return [
            {"type": "response.content_part.added", **place, "part": part},
            {"type": "response.content_part.done", **place, "part": part},
        ]
    prefix, field = known
    text = part.get(field) or ""
    empty = {**part, field: ""}
    if "annotations" in part:
        empty["annotations"] = []
    logprobs: Event = {"logprobs": []} if prefix == "response.output_text" else {}
    return [
        {"type": "response.content_part.added", **place, "part": empty},
        {"type": f"{prefix}.delta", **place, "delta": text, **logprobs},
        {"type": f"{prefix}.done", **place, field: text, **logprobs},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def _summary(place: dict[str, Any], part: dict[str, Any]) -> list[Event]:
    text = part.get("text") or ""
    prefix = "response.reasoning_summary"
    return [
        {"type": f"{prefix}_part.added", **place, "part": {**part, "text": ""}},
        {"type": f"{prefix}_text.delta", **place, "delta": text},
        {"type": f"{prefix}_text.done", **place, "text": text},
        {"type": f"{prefix}_part.done", **place, "part": part},
    ]
