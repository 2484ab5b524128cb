"""Builds output items from stream events: what a response had said when its stream broke."""

from __future__ import annotations

import logging
from typing import Any

from services.worker.domain import Event, Item
from services.worker.errors import MALFORMED

logger = logging.getLogger(__name__)

_APPENDED = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "text",
    "response.reasoning_summary_text.delta": "text",
}
_ARGUMENTS = {
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.code_interpreter_call_code.delta": "code",
}
_PART_LISTS = {
    "response.content_part.added": ("content", "content_index"),
    "response.reasoning_summary_part.added": ("summary", "summary_index"),
}


class OutputBuilder:
    """Follows the events of one stream; `items` is the output as far as it came."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self.last_sequence_number = -1
        self.delivered = False

    def begin_with(self, items: list[Item]) -> None:
        """Take over the output of turns that ended; call before the first event."""
        self._items = {index: dict(item) for index, item in enumerate(items)}

    def item(self, output_index: int) -> Item | None:
        """Return the item at a place as far as it came, None when there is none."""
        return self._items.get(output_index)

    def feed(self, event: Event) -> None:
        """Take one event; those of another shape change nothing but the sequence number."""
        number = event.get("sequence_number")
        if isinstance(number, int):
            self.last_sequence_number = max(self.last_sequence_number, number)
        try:
            self._feed(event)
        except MALFORMED:
            # What was piped was not looked at: a provider may have sent anything.
            logger.warning("an event of another shape: %r", event.get("type"))

    def _feed(self, event: Event) -> None:
        kind = event.get("type", "")
        index = event.get("output_index")
        if index is None:
            return
        self.delivered = True
        if kind in ("response.output_item.added", "response.output_item.done"):
            self._items[int(index)] = dict(event["item"])
            return
        item = self._items.get(index)
        if item is None:
            return
        if kind in _PART_LISTS:
            self._add_part(item, event, *_PART_LISTS[kind])
        elif kind in _APPENDED:
            self._append(item, event, _APPENDED[kind])
        elif kind in _ARGUMENTS:
            field = _ARGUMENTS[kind]
            item[field] = (item.get(field) or "") + event["delta"]

    @staticmethod
    def _add_part(item: Item, event: Event, field: str, index_name: str) -> None:
        parts: list[Any] = item.setdefault(field, [])
        if event[index_name] == len(parts):
            parts.append(event["part"])

    @staticmethod
    def _append(item: Item, event: Event, field: str) -> None:
        summary = "summary_index" in event
        parts = item.get("summary" if summary else "content") or []
        index = event["summary_index"] if summary else event.get("content_index", 0)
        if index < len(parts):
            parts[index][field] = parts[index].get(field, "") + event["delta"]

    @property
    def items(self) -> list[Item]:
        """Return the items in order; those that were cut off are marked incomplete."""
        cut: list[Item] = []
        for _, item in sorted(self._items.items()):
            unfinished = item.get("status") == "in_progress"
            cut.append({**item, "status": "incomplete"} if unfinished else item)
        return cut
