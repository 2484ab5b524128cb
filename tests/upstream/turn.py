"""Builds the events of one response and keeps the response they describe; knows no item types."""

import copy
import time
from dataclasses import dataclass, field

from tests.upstream.answers import Json
from tests.upstream.refusals import invalid

_ECHOED: Json = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


@dataclass
class Turn:
    """One response in the making: `events` so far and the `output` items they built.

    Item ids derive from the response id, so they are unique as long as that one is.
    """

    response_id: str
    body: Json
    events: list[Json] = field(default_factory=list)
    output: list[Json] = field(default_factory=list)
    created_at: int = field(default_factory=lambda: int(time.time()))

    def emit(self, type_: str, **fields: object) -> None:
        """Append an event with the next sequence number."""
        self.events.append({"type": type_, "sequence_number": len(self.events), **fields})

    def begin(self, *, queued: bool = False) -> None:
        """Emit what every stream starts with."""
        self.emit("response.created", response=self.snapshot("in_progress"))
        if queued:
            self.emit("response.queued", response=self.snapshot("queued"))
        self.emit("response.in_progress", response=self.snapshot("in_progress"))

    def add(self, prefix: str, item: Json) -> "OpenItem":
        """Open the next output item; `item` is its state while it is in progress."""
        index = len(self.output)
        suffix = self.response_id.partition("_")[2]
        full = {"id": f"{prefix}_{suffix}{index:02x}", **item}
        self.output.append(full)
        self.emit("response.output_item.added", output_index=index, item=copy.deepcopy(full))
        return OpenItem(self, index)

    def call_id(self, prefix: str = "call") -> str:
        """A call id for the item that is added next."""
        return f"{prefix}_{self.response_id.partition('_')[2]}{len(self.output):02x}"

    def snapshot(self, status: str, **changes: object) -> Json:
        """The response as it is now, with the request's own parameters."""
        given = {key: self.body[key] for key in _ECHOED if self.body.get(key) is not None}
        if "tools" in given:
            given["tools"] = [_tool(tool) for tool in given["tools"]]
        response = {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "completed_at": self.created_at if status == "completed" else None,
            "error": None,
            "incomplete_details": None,
            "model": self.body["model"],
            "output": copy.deepcopy(self.output),
            "service_tier": _tier(self.body.get("service_tier")),
            "usage": None,
        }
        return response | _ECHOED | given | changes


@dataclass
class OpenItem:
    """An output item between `added` and `done`."""

    turn: Turn
    index: int

    @property
    def item_id(self) -> str:
        """The id that its events carry."""
        return str(self.turn.output[self.index]["id"])

    def event(self, type_: str, **fields: object) -> None:
        """Emit an event of this item."""
        self.turn.emit(type_, item_id=self.item_id, output_index=self.index, **fields)

    def steps(self, family: str, *steps: str) -> None:
        """Emit the state events of a hosted call, such as `in_progress` and `searching`."""
        for step in steps:
            self.event(f"response.{family}.{step}")

    def done(self, **changes: object) -> None:
        """Set the final state of the item and emit it."""
        item = self.turn.output[self.index]
        item.update(changes)
        self.turn.emit(
            "response.output_item.done", output_index=self.index, item=copy.deepcopy(item)
        )


def _tool(given: Json) -> Json:
    """Name what a function leaves open, as the real API does."""
    if given["type"] != "function":
        return given
    return {"description": None, "parameters": None, "strict": True} | given


def _tier(asked: str | None) -> str:
    if asked not in (None, "auto", "default", "flex", "scale", "priority", "fast", "ultrafast"):
        raise invalid(f"Invalid value: '{asked}'.", code="invalid_value", param="service_tier")
    return "default" if asked in (None, "auto") else asked
