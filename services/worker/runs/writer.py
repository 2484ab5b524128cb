"""Writes the events of a response that is composed here."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.worker import sse
from services.worker.domain import Event
from services.worker.runs.output import OutputBuilder


class EventWriter:
    """Numbers events and hands their bytes on.

    `write` is None for a client that asked for no stream. Events up to `skip_through` were
    delivered by an earlier attempt and are numbered but not written again.
    """

    def __init__(self, write: Callable[[bytes], None] | None, *, skip_through: int = -1) -> None:
        self._write = write
        self._skip_through = skip_through
        self._next = 0
        self.built = OutputBuilder()
        self.first_output_at: float | None = None

    @property
    def last_sequence_number(self) -> int:
        """The number of the last event, an earlier attempt's included; -1 before the first."""
        return max(self._next - 1, self._skip_through)

    def emit(self, event: Event) -> None:
        """Number and write one event."""
        event["sequence_number"] = self._next
        self._next += 1
        if self.first_output_at is None and "output_index" in event:
            self.first_output_at = time.monotonic()
        if self._write is not None and event["sequence_number"] > self._skip_through:
            self._write(sse.encode(event))
        self.built.feed(event)

    def close(self, event: Event) -> bytes:
        """Number the terminal event and return its bytes; the caller sends them as the last."""
        self._next = max(self._next, self._skip_through + 1)
        event["sequence_number"] = self._next
        self._next += 1
        return sse.encode(event)
