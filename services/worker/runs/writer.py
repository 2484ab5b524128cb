"""Writes the events of a response that is composed here."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.worker import sse
from services.worker.checkpoints.state import Boundary
from services.worker.domain import Event
from services.worker.runs.output import OutputBuilder


class EventWriter:
    """Numbers events and hands their bytes on.

    `write` is None for a client that asked for no stream. Events up to `skip_through` were
    delivered by an earlier attempt and are numbered but not written again. With `begin` the events
    before that boundary have been told.
    """

    def __init__(
        self,
        write: Callable[[bytes], None] | None,
        *,
        skip_through: int = -1,
        begin: Boundary | None = None,
    ) -> None:
        self._write = write
        self._skip_through = skip_through
        self.next_number = 0
        self.built = OutputBuilder()
        self.first_output_at: float | None = None
        self._output_of_turn = False
        if begin is not None:
            self.next_number = begin.next_number
            self.built.begin_with(begin.output)

    @property
    def last_sequence_number(self) -> int:
        """The number of the last event, an earlier attempt's included; -1 before the first."""
        return max(self.next_number - 1, self._skip_through)

    @property
    def delivered(self) -> bool:
        """Whether the client has output of a turn that did not end: it can't be asked again."""
        return self._output_of_turn and self._write is not None

    def begin_turn(self) -> None:
        """Note that all output so far is of turns that ended."""
        self._output_of_turn = False

    def emit(self, event: Event) -> None:
        """Number and write one event."""
        event["sequence_number"] = self.next_number
        self.next_number += 1
        if "output_index" in event:
            self._output_of_turn = True
            if self.first_output_at is None:
                self.first_output_at = time.monotonic()
        if self._write is not None and event["sequence_number"] > self._skip_through:
            self._write(sse.encode(event))
        self.built.feed(event)

    def close(self, event: Event) -> bytes:
        """Number the terminal event and return its bytes; the caller sends them as the last."""
        self.next_number = max(self.next_number, self._skip_through + 1)
        event["sequence_number"] = self.next_number
        self.next_number += 1
        return sse.encode(event)
