"""Messages and reasoning items while the model speaks: their events and their final form."""

from __future__ import annotations

from typing import Any, NamedTuple

from services.worker.chat.turn import Event, Item

Logprobs = list[dict[str, Any]]


class PartKind(NamedTuple):
    """A kind of content part: its type, the field of its text, its events."""

    part_type: str
    field: str
    delta: str
    done: str


TEXT = PartKind("output_text", "text", "response.output_text.delta", "response.output_text.done")
REFUSAL = PartKind("refusal", "refusal", "response.refusal.delta", "response.refusal.done")
REASONING = PartKind(
    "reasoning_text", "text", "response.reasoning_text.delta", "response.reasoning_text.done"
)


class SpeechItem:
    """An item made of text: a message of the assistant, or its reasoning.

    Every method returns the events it causes. `item` is the item as of the last event about it.
    """

    __slots__ = (
        "_annotations",
        "_kind",
        "_logprobs",
        "_parts",
        "_pieces",
        "item",
        "item_id",
        "output_index",
    )

    def __init__(self, item_id: str, output_index: int, *, reasoning: bool) -> None:
        self.item_id = item_id
        self.output_index = output_index
        self.item: Item = {
            "id": item_id,
            "type": "reasoning" if reasoning else "message",
            "status": "in_progress",
            "content": [],
        }
        if reasoning:
            self.item["summary"] = []
        else:
            self.item["role"] = "assistant"
        self._kind: PartKind | None = None
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._logprobs: Logprobs = []
        self._annotations: list[dict[str, Any]] = []

    def opening(self) -> list[Event]:
        """Announce the item."""
        return [
            {
                "type": "response.output_item.added",
                "output_index": self.output_index,
                "item": self.item,
            }
        ]

    def write(self, kind: PartKind, delta: str, logprobs: Logprobs) -> list[Event]:
        """Add to the open part, or close it and open one of another kind."""
        events = [] if kind is self._kind else self.begin(kind)
        self._pieces.append(delta)
        event: Event = {
            "type": kind.delta,
            "item_id": self.item_id,
            "output_index": self.output_index,
            "content_index": len(self._parts),
            "delta": delta,
        }
        if kind is TEXT:
            event["logprobs"] = _without_bytes(logprobs) if logprobs else logprobs
            if logprobs:
                self._logprobs.extend(logprobs)
        events.append(event)
        return events

    def begin(self, kind: PartKind) -> list[Event]:
        """Open a part, still empty; close the one before."""
        events = self._close_part()
        self._kind, self._pieces, self._logprobs, self._annotations = kind, [], [], []
        events.append(self._part_event("response.content_part.added", self._part()))
        return events

    def annotate(self, annotation: dict[str, Any]) -> list[Event]:
        """Attach an annotation to the text, opening a text part if none is open."""
        events = [] if self._kind is TEXT else self.begin(TEXT)
        event = self._event("response.output_text.annotation.added")
        event["annotation_index"] = len(self._annotations)
        self._annotations.append(annotation)
        return [*events, event | {"annotation": annotation}]

    def close(self, status: str) -> list[Event]:
        """End the item with `status`."""
        events = self._close_part()
        self.item = self.item | {"status": status, "content": self._parts}
        return [
            *events,
            {
                "type": "response.output_item.done",
                "output_index": self.output_index,
                "item": self.item,
            },
        ]

    def complete(self) -> bool:
        """Say whether the item may end when another begins: text always may."""
        return True

    def _close_part(self) -> list[Event]:
        if self._kind is None:
            return []
        part = self._part()
        done = self._event(self._kind.done) | {self._kind.field: part[self._kind.field]}
        if self._kind is TEXT:
            done["logprobs"] = _without_bytes(self._logprobs)
        events = [done, self._part_event("response.content_part.done", part)]
        self._parts.append(part)
        self._kind = None
        return events

    def _part(self) -> dict[str, Any]:
        if self._kind is None:
            raise RuntimeError("no part is open")
        part: dict[str, Any] = {"type": self._kind.part_type}
        if self._kind is TEXT:
            part |= {"annotations": self._annotations.copy(), "logprobs": self._logprobs.copy()}
        return part | {self._kind.field: "".join(self._pieces)}

    def _part_event(self, kind: str, part: dict[str, Any]) -> Event:
        return self._event(kind) | {"part": part}

    def _event(self, kind: str) -> Event:
        return {
            "type": kind,
            "item_id": self.item_id,
            "output_index": self.output_index,
            "content_index": len(self._parts),
        }


def shape_logprobs(entries: list[dict[str, Any]]) -> Logprobs:
    """Return the log probabilities of a chat choice as the Responses API words them."""
    return [
        _logprob(entry)
        | {"top_logprobs": [_logprob(top) for top in entry.get("top_logprobs") or ()]}
        for entry in entries
    ]


def shape_annotation(annotation: dict[str, Any]) -> dict[str, Any] | None:
    """Return a chat annotation as the Responses API words it; None for a kind it doesn't know."""
    cited = annotation.get("url_citation")
    if not isinstance(cited, dict):
        return None
    return {
        "type": "url_citation",
        "start_index": cited.get("start_index") or 0,
        "end_index": cited.get("end_index") or 0,
        "url": cited.get("url") or "",
        "title": cited.get("title") or "",
    }


def _without_bytes(entries: Logprobs) -> Logprobs:
    """Shape them for an event: the API's type of it names no bytes, the finished part's does."""
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in entry["top_logprobs"]
            ],
        }
        for entry in entries
    ]


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    token = entry.get("token") or ""
    known = entry.get("bytes")
    token_bytes = list(token.encode()) if known is None else known
    return {"token": token, "logprob": entry.get("logprob"), "bytes": token_bytes}
