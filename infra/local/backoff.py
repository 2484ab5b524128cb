"""How long to wait before a part that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Exponential waits from `first_s` to `longest_s`; a part that ran `calm_s` starts over."""

    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 30.0
    calm_s: float = 60.0

    def failures_after(self, failures: int, ran_s: float) -> int:
        """Count one more end, forgetting the earlier ones after a calm run."""
        return 1 if ran_s >= self.calm_s else failures + 1

    def wait_s(self, failures: int) -> float:
        """Give the wait after the n-th end in a row, counted from 1."""
        # Bounded before the power, which overflows a float after a thousand failures.
        exponent = min(failures - 1, 64)
        return min(self.first_s * self.factor**exponent, self.longest_s)
