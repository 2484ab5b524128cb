"""One streamed chat completion as the item events of the Responses API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from services.worker.chat.calls import CallItem, CallSlot, CallTable, function_of
from services.worker.chat.outcome import judge, server_error, shape_error, shape_usage
from services.worker.chat.parameters import wants_logprobs
from services.worker.chat.speech import (
    REASONING,
    REFUSAL,
    TEXT,
    Logprobs,
    PartKind,
    SpeechItem,
    shape_annotation,
    shape_logprobs,
)
from services.worker.chat.tools import custom_tool_names
from services.worker.chat.turn import Event, TurnEnd


class ChatTurn:
    """Turns the chunks of one chat completion (n=1) into events of item level.

    Feed every parsed chunk in order, then call `finish` once, whatever ended the stream. Events
    have no `sequence_number`; `output_index` counts from 0 within the turn. An item closes when
    the next one opens, except a call whose arguments are not whole yet: servers may interleave
    parallel calls, and then each stays open as long as it grows. `new_id` makes an id from the
    prefix of the kind (`msg`, `rs`, `fc`, `ctc`, `call`).
    """

    def __init__(self, *, new_id: Callable[[str], str], request: dict[str, Any]) -> None:
        self._new_id = new_id
        self._custom = custom_tool_names(request)
        self._with_logprobs = wants_logprobs(request)
        self._items: list[SpeechItem | CallItem] = []
        self._open: list[SpeechItem | CallItem] = []
        self._speech: SpeechItem | None = None
        self._speech_is_reasoning = False
        self._calls = CallTable()
        self._one_call = request.get("parallel_tool_calls") is False
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._error: dict[str, str] | None = None
        self._model: str | None = None
        self._service_tier: str | None = None

    def feed(self, chunk: dict[str, Any]) -> list[Event]:
        """Return the events that one `chat.completion.chunk` causes; none after an error."""
        choices = self._read_envelope(chunk)
        if not choices:
            return []
        choice = choices[0]
        if choice.get("finish_reason"):
            self._finish_reason = choice["finish_reason"]
        delta = choice.get("delta")
        if not delta:
            return []
        events: list[Event] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            events += self._speak(REASONING, reasoning, [])
        content = delta.get("content")
        known = choice.get("logprobs")
        logprobs = self._logprobs(known) if known else []
        if isinstance(content, str):
            if content or (logprobs and self._speech is not None):
                events += self._speak(TEXT, content, logprobs)
        elif content:
            for kind, text in _spread(content):
                events += self._speak(kind, text, [])
        if delta.get("refusal"):
            events += self._speak(REFUSAL, delta["refusal"], [])
        for annotation in delta.get("annotations") or ():
            events += self._annotate(annotation)
        for piece in _call_pieces(delta):
            events += self._call(piece)
        return events

    def finish(self) -> tuple[list[Event], TurnEnd]:
        """Close what is open; return the last events and what the turn came to."""
        status, incomplete_details, error = judge(self._finish_reason, self._error)
        if status == "completed" and any(slot.item is None for slot in self._calls.slots):
            status, error = "failed", server_error("the provider sent a tool call without a name")
        events: list[Event] = []
        if status == "completed" and not self._items:
            # A model may end without a word. Its turn is still a message, if an empty one.
            speech, opening = self._open_speech(reasoning=False)
            events = opening + speech.begin(TEXT)
        for item in self._open:
            events += item.close("completed" if status == "completed" else "incomplete")
        return events, TurnEnd(
            status=status,
            output=[item.item for item in self._items],
            usage=shape_usage(self._usage),
            incomplete_details=incomplete_details,
            error=error,
            model=self._model,
            service_tier=self._service_tier,
        )

    def _read_envelope(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Note what a chunk says of the whole turn; return its choices."""
        if self._error is not None:
            return []
        if chunk.get("error"):
            self._error = shape_error(chunk["error"])
            return []
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        if chunk.get("model"):
            self._model = chunk["model"]
        if chunk.get("service_tier"):
            self._service_tier = chunk["service_tier"]
        choices: list[dict[str, Any]] = chunk.get("choices") or []
        return choices

    def _speak(self, kind: PartKind, text: str, logprobs: Logprobs) -> list[Event]:
        speech, events = self._open_speech(reasoning=kind is REASONING)
        written = speech.write(kind, text, logprobs)
        return events + written if events else written

    def _annotate(self, given: dict[str, Any]) -> list[Event]:
        annotation = shape_annotation(given)
        if annotation is None:
            return []
        speech, events = self._open_speech(reasoning=False)
        return events + speech.annotate(annotation)

    def _open_speech(self, *, reasoning: bool) -> tuple[SpeechItem, list[Event]]:
        """Return the open message or reasoning item, and the events of opening it just now."""
        if self._speech is not None and self._speech_is_reasoning is reasoning:
            return self._speech, []
        events = self._close_whole()
        item_id = self._new_id("rs" if reasoning else "msg")
        speech = SpeechItem(item_id, len(self._items), reasoning=reasoning)
        self._speech, self._speech_is_reasoning = speech, reasoning
        self._items.append(speech)
        self._open.append(speech)
        return speech, events + speech.opening()

    def _call(self, piece: dict[str, Any]) -> list[Event]:
        slot = self._calls.find(piece)
        if self._one_call:
            # Many servers don't know the parameter and let the model call as it likes.
            del self._calls.slots[1:]
            if slot not in self._calls.slots:
                return []
        name, arguments = function_of(piece)
        if slot.item is not None:
            # An item closed because its arguments were whole: only blanks can come later.
            return [] if slot.closed else slot.item.write(arguments)
        slot.held += arguments
        if not name:
            return []
        slot.name = name
        return self._open_call(slot, name)

    def _open_call(self, slot: CallSlot, name: str) -> list[Event]:
        events = self._close_whole()
        custom = name in self._custom
        slot.item = CallItem(
            self._new_id("ctc" if custom else "fc"),
            len(self._items),
            call_id=slot.call_id or self._new_id("call"),
            name=name,
            custom=custom,
        )
        self._items.append(slot.item)
        self._open.append(slot.item)
        events += slot.item.opening()
        return events + slot.item.write(slot.held) if slot.held else events

    def _close_whole(self) -> list[Event]:
        """Close every open item but the calls that may still grow."""
        events: list[Event] = []
        growing: list[SpeechItem | CallItem] = []
        for item in self._open:
            if item.complete():
                events += item.close("completed")
            else:
                growing.append(item)
        self._open = growing
        self._speech = None
        for slot in self._calls.slots:
            slot.closed = slot.item is not None and slot.item not in growing
        return events

    def _logprobs(self, known: dict[str, Any]) -> Logprobs:
        if not self._with_logprobs:
            return []
        return shape_logprobs(known.get("content") or [])


def _spread(content: list[dict[str, Any]]) -> Iterator[tuple[PartKind, str]]:
    """Read content in parts, as Mistral's reasoning models send it."""
    for part in content:
        if part.get("type") == "text" and part.get("text"):
            yield TEXT, part["text"]
        elif part.get("type") == "thinking":
            thoughts = "".join(thought.get("text") or "" for thought in part.get("thinking") or ())
            if thoughts:
                yield REASONING, thoughts


def _call_pieces(delta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the deltas of calls, also of the one call of the deprecated `function_call`."""
    pieces: list[dict[str, Any]] = delta.get("tool_calls") or []
    if not pieces and delta.get("function_call"):
        return [{"index": 0, "function": delta["function_call"]}]
    return pieces
