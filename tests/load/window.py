"""The measured window, and which events of a stream that was read in parts are within it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from tests.load.checks import whole_deltas, whole_events


@dataclass(slots=True)
class Reads:
    """What was read of one answer, HTTP included, and when (monotonic seconds)."""

    parts: list[bytes] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def add(self, data: bytes, now_s: float) -> None:
        """Keep what was read just now."""
        self.parts.append(data)
        self.times_s.append(now_s)


@dataclass(frozen=True, slots=True)
class Window:
    """From its begin up to its end, in monotonic seconds."""

    begin_s: float
    end_s: float

    def holds(self, now_s: float) -> bool:
        """Tell whether a moment is within it."""
        return self.begin_s <= now_s < self.end_s

    def holds_all(self, reads: Reads) -> bool:
        """Tell whether an answer came within it from its first byte to its last."""
        times_s = reads.times_s
        return bool(times_s) and self.holds(times_s[0]) and self.holds(times_s[-1])

    def count(self, reads: Reads) -> tuple[int, int]:
        """Give the number of events whose last bytes were read within it, and of their deltas.

        Events that a gateway cut in several chunks may be missed: chunks are not taken apart here.
        """
        first, last = (bisect_left(reads.times_s, edge) for edge in (self.begin_s, self.end_s))
        if first == last:
            return 0, 0
        before, within = b"".join(reads.parts[:first]), b"".join(reads.parts[:last])
        events = whole_events(within) - whole_events(before)
        return events, whole_deltas(within) - whole_deltas(before)
