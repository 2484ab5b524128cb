"""Tool calls while the model writes them: which delta is whose, their events, their final form."""

from __future__ import annotations

import json
from typing import Any

from services.worker.chat.turn import Event, Item
from services.worker.chat.unwrap import InputUnwrapper, is_whole_object


class CallItem:
    """A call of a function, or of a custom tool whose input travels inside an object.

    Every method returns the events it causes. `item` is the item as of the last event about it.
    """

    __slots__ = ("_family", "_field", "_pieces", "_unwrapper", "item", "item_id", "output_index")

    def __init__(
        self, item_id: str, output_index: int, *, call_id: str, name: str, custom: bool
    ) -> None:
        self.item_id = item_id
        self.output_index = output_index
        self._field = "input" if custom else "arguments"
        self._family = (
            f"response.{'custom_tool_call_input' if custom else 'function_call_arguments'}"
        )
        self._unwrapper = InputUnwrapper() if custom else None
        self._pieces: list[str] = []
        self.item: Item = {
            "id": item_id,
            "type": "custom_tool_call" if custom else "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            self._field: "",
        }

    def opening(self) -> list[Event]:
        """Announce the item."""
        return [
            {
                "type": "response.output_item.added",
                "output_index": self.output_index,
                "item": self.item,
            }
        ]

    def write(self, piece: str) -> list[Event]:
        """Add a piece of the arguments."""
        text = piece if self._unwrapper is None else self._unwrapper.feed(piece)
        return self._delta(text) if text else []

    def close(self, status: str) -> list[Event]:
        """End the item: completed when its arguments are whole, else with `status`."""
        events: list[Event] = []
        if self.complete():
            status = "completed"
        if self._unwrapper is not None:
            rest = self._unwrapper.finish()
            events = self._delta(rest) if rest else []
        elif not self._pieces and status == "completed":
            # Servers may send nothing for a call without arguments, but clients parse JSON.
            events = self._delta("{}")
        written = "".join(self._pieces)
        self.item = self.item | {"status": status, self._field: written}
        done = self._event("done") | {self._field: written}
        ended: Event = {
            "type": "response.output_item.done",
            "output_index": self.output_index,
            "item": self.item,
        }
        return [*events, done, ended]

    def complete(self) -> bool:
        """Say whether the arguments are whole, so that nothing more can come."""
        if self._unwrapper is not None:
            return self._unwrapper.complete()
        return is_whole_object("".join(self._pieces))

    def _delta(self, text: str) -> list[Event]:
        self._pieces.append(text)
        return [self._event("delta") | {"delta": text}]

    def _event(self, suffix: str) -> Event:
        return {
            "type": f"{self._family}.{suffix}",
            "item_id": self.item_id,
            "output_index": self.output_index,
        }


class CallSlot:
    """What is known of one call of a turn; the item opens once the name is known."""

    __slots__ = ("call_id", "closed", "held", "item", "name")

    def __init__(self) -> None:
        self.call_id: str | None = None
        self.name: str | None = None
        self.held = ""
        self.item: CallItem | None = None
        self.closed = False


class CallTable:
    """Assigns deltas of `tool_calls` to calls, for servers that number them well or badly."""

    __slots__ = ("_latest", "slots")

    def __init__(self) -> None:
        self.slots: list[CallSlot] = []
        self._latest: dict[object, CallSlot] = {}

    def find(self, piece: dict[str, Any]) -> CallSlot:
        """Return the slot a delta belongs to, a new one for a call's first delta.

        A known index does not prove a known call: some servers number every call 0, others repeat
        id and name with each delta, others make up an id per delta. So a new call is a new
        index, another name, or a name once more after arguments that were already whole.
        """
        index = piece.get("index")
        slot = self._latest.get(index)
        if slot is None or _starts_another(slot, piece):
            slot = CallSlot()
            self.slots.append(slot)
            self._latest[index] = slot
        slot.call_id = slot.call_id or piece.get("id")
        return slot


def function_of(piece: dict[str, Any]) -> tuple[str | None, str]:
    """Return the name and the arguments in a delta; some servers send the latter as an object."""
    function = piece.get("function") or {}
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return function.get("name"), arguments


def _starts_another(slot: CallSlot, piece: dict[str, Any]) -> bool:
    name, arguments = function_of(piece)
    if not name or slot.name is None or (slot.call_id and slot.call_id == piece.get("id")):
        return False
    if name != slot.name:
        return True
    return bool(arguments.strip()) and slot.item is not None and slot.item.complete()
