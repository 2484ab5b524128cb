"""What a series of memory readings says: how fast it grows, how much it was, and whether it may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.load.figures import Bar

WARMUP_SHARE = 1 / 6
"""Buffers, pools and caches fill in this part of the time; growth is judged after it."""
MOST_MB = 300.0
MOST_MB_PER_MINUTE = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading, `at_s` seconds after the begin: what waits, what runs, and memory."""

    at_s: float
    queued: int
    background: int
    streams: int
    rss_mb: dict[str, float]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Give the slope of the least-squares line through points, 0 for fewer than two places."""
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def growth(samples: Sequence[Sample], part: str) -> float:
    """Give the growth of a part in MB a minute, after the warm-up."""
    begin_s = max(0.0, samples[-1].at_s) * WARMUP_SHARE
    judged = [(s.at_s / 60, s.rss_mb[part]) for s in samples if s.at_s >= begin_s]
    return slope(judged)


def memory_bars(samples: Sequence[Sample], parts: Sequence[str]) -> list[Bar]:
    """Judge the memory of each part: no growth, and never above the bound."""
    judged = []
    for part in parts:
        grown, most_mb = growth(samples, part), max(sample.rss_mb[part] for sample in samples)
        judged += [
            Bar(
                f"{part}: growth",
                f"< {MOST_MB_PER_MINUTE:g} MB/min",
                f"{grown:+.2f} MB/min",
                grown < MOST_MB_PER_MINUTE,
            ),
            Bar(
                f"{part}: most RSS", f"<= {MOST_MB:.0f} MB", f"{most_mb:.0f} MB", most_mb <= MOST_MB
            ),
        ]
    return judged
