"""The circuit breaker of one provider: a pure rule over the times of its successes and failures."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """What a breaker does with the next call; the numbers are those of its metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When to open: after `failures` in a row, or when at least `rate` of `min_calls` or more
    calls within `window_seconds` failed. After `open_seconds` up to `probes` calls at once may try;
    as many successes close it, one failure opens it again. With `failures` 0 it never opens.
    """

    failures: int = 10
    rate: float = 0.5
    min_calls: int = 20
    window_seconds: float = 30.0
    open_seconds: float = 10.0
    probes: int = 1


class Breaker:
    """Counts what callers tell it. Times are seconds of any one clock that does not go back.

    Each admitted call must be settled once, with the ticket it was given.
    """

    def __init__(self, rule: BreakerRule) -> None:
        self._rule = rule
        # Whole seconds with their [calls, failures], oldest first: bounded by the window.
        self._seconds: deque[tuple[int, list[int]]] = deque()
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._ticket = 0
        self._probing = 0
        self._proven = 0

    def state(self, now: float) -> State:
        """Say what it is at this time."""
        if self._opened_at is None:
            return State.CLOSED
        half_open = now - self._opened_at >= self._rule.open_seconds
        return State.HALF_OPEN if half_open else State.OPEN

    def admit(self, now: float) -> int | None:
        """Return a ticket for one call, None when none may be made now."""
        if self._opened_at is None:
            return self._ticket
        if self.state(now) is State.OPEN or self._probing >= self._rule.probes:
            return None
        self._probing += 1
        return self._ticket

    def opens_in(self, now: float) -> float:
        """Return the seconds until calls may be tried again, 0 when they may now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._rule.open_seconds - now)

    def answered(self, ticket: int, now: float) -> bool:
        """Take a probe that is being answered as a success, and say whether it was a probe.

        Such a call is settled with that: one that streams for an hour must not keep others waiting.
        """
        if ticket != self._ticket or self._opened_at is None:
            return False
        self._settle_probe(failed=False, now=now)
        return True

    def settle(self, ticket: int, *, failed: bool | None, now: float) -> None:
        """Take the end of a call: it failed, it did not, or (None) nobody knows.

        Calls that were admitted before the last change of state decide nothing any more.
        """
        if ticket != self._ticket:
            return
        if self._opened_at is not None:
            self._settle_probe(failed=failed, now=now)
        elif failed is not None and self._rule.failures:
            self._count(failed, now)

    def _settle_probe(self, *, failed: bool | None, now: float) -> None:
        self._probing -= 1
        if failed:
            self._change(now)
        elif failed is False:
            self._proven += 1
            if self._proven >= self._rule.probes:
                self._change(None)

    def _count(self, failed: bool, now: float) -> None:
        self._in_a_row = self._in_a_row + 1 if failed else 0
        second = int(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, [0, 0]))
            self._forget(now)
        counts = self._seconds[-1][1]
        counts[0] += 1
        counts[1] += failed
        if failed and (self._in_a_row >= self._rule.failures or self._too_many(now)):
            self._change(now)

    def _too_many(self, now: float) -> bool:
        self._forget(now)
        calls = sum(counts[0] for _, counts in self._seconds)
        failures = sum(counts[1] for _, counts in self._seconds)
        return calls >= self._rule.min_calls and failures >= self._rule.rate * calls

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - self._rule.window_seconds:
            self._seconds.popleft()

    def _change(self, opened_at: float | None) -> None:
        self._opened_at = opened_at
        self._ticket += 1
        self._seconds.clear()
        self._in_a_row = self._probing = self._proven = 0
