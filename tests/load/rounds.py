"""Unpaced streams of the upstream, side by side: in each turn the next write of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

Write = Callable[[bytes], None]


class Rounds:
    """Everything that is to be written as fast as it goes, fairly and without a task per stream.

    A turn of the event loop makes one write of each stream that has room; what comes in is read
    between two turns.
    """

    def __init__(self) -> None:
        self._open: dict[Write, Iterator[bytes]] = {}
        self._is_due = False

    def add(self, write: Write, pieces: Iterator[bytes]) -> None:
        """Write the pieces, each in a turn of its own; one stream for each `write` at a time."""
        self._open[write] = pieces
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def remove(self, write: Write) -> Iterator[bytes] | None:
        """Stop, because there is no room or nobody listens; give what was not written yet."""
        return self._open.pop(write, None)

    def _turn(self) -> None:
        # A write may find that there is no room any more, which removes its stream.
        for write, pieces in list(self._open.items()):
            piece = next(pieces, None)
            if piece is None:
                self._open.pop(write, None)
            else:
                write(piece)
        self._is_due = bool(self._open)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._turn)
