"""What a series of memory readings says, and when a soak has passed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.load.soak import Found, Plan, judge, options, render
from tests.load.trend import Sample, growth, memory_bars, slope

PARTS = ("intake", "worker")


def sample(at_s: float, intake: float, worker: float, **held: int) -> Sample:
    numbers = {"queued": 100, "background": 10, "streams": 50, **held}
    rss_mb = {"intake": intake, "worker": worker, "kafka": 400.0, "postgres": 200.0}
    return Sample(at_s, numbers["queued"], numbers["background"], numbers["streams"], rss_mb)


def test_the_slope_is_that_of_the_least_squares_line() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 2), (2, 1)]) == pytest.approx(0.5)
    assert slope([(3, 7), (3, 9)]) == 0
    assert slope([]) == 0


def test_growth_is_in_mb_a_minute_and_judged_after_the_warm_up() -> None:
    warming = [sample(0, 50, 100), sample(30, 140, 100)]
    steady = [sample(60 * minute, 150 + minute / 2, 100) for minute in range(2, 11)]
    assert growth([*warming, *steady], "intake") == pytest.approx(0.5)
    assert growth([*warming, *steady], "worker") == 0


def test_memory_must_neither_grow_nor_be_too_much() -> None:
    readings = [sample(60 * minute, 100 + 2 * minute, 301) for minute in range(11)]
    assert [(bar.what, bar.reached, bar.met) for bar in memory_bars(readings, PARTS)] == [
        ("intake: growth", "+2.00 MB/min", False),
        ("intake: most RSS", "120 MB", True),
        ("worker: growth", "+0.00 MB/min", True),
        ("worker: most RSS", "301 MB", False),
    ]


def found(*readings: Sample, errors: dict[str, int] | None = None, **states: int) -> Found:
    streams: dict[str, Any] = {"requests": 500, "errors": errors or {}, "lag_ms": None}
    return Found(
        idle_mb=readings[0].rss_mb,
        samples=list(readings),
        streams=streams,
        states=Counter(states),
        cpu_cores=dict.fromkeys(("intake", "worker", "kafka", "postgres"), 0.25),
    )


PLAN = Plan(seconds=100, queued=100, streams=50)
DRAINED = sample(110, 100, 100, queued=0, background=0, streams=0)


def test_a_soak_passes_when_all_was_held_and_all_has_drained() -> None:
    whole = found(sample(0, 100, 100), sample(50, 100, 100), DRAINED, completed=305)
    bars = judge(whole, PLAN, [])
    assert all(bar.met for bar in bars), bars
    text = render(whole, PLAN, bars)
    assert "| 1.8    |      0 |" in text
    assert "missed" not in text


@pytest.mark.parametrize(
    ("what", "seen", "restarted"),
    [
        ("queued at once", found(sample(0, 100, 100, queued=80), DRAINED, completed=305), []),
        (
            "streams open in every reading",
            found(sample(0, 100, 100), sample(50, 100, 100, streams=40), DRAINED, completed=305),
            [],
        ),
        ("background responses completed", found(sample(0, 100, 100), DRAINED, completed=304), []),
        (
            "errors",
            found(sample(0, 100, 100), DRAINED, errors={"unfinished": 1}, completed=305),
            [],
        ),
        ("restarted parts", found(sample(0, 100, 100), DRAINED, completed=305), ["worker"]),
    ],
)
def test_a_soak_fails_for_each_promise_by_itself(
    what: str, seen: Found, restarted: list[str]
) -> None:
    assert [bar.what for bar in judge(seen, PLAN, restarted) if not bar.met] == [what]


def test_the_queue_lasts_for_the_window_and_streams_end_within_it() -> None:
    plan = Plan(seconds=600, queued=10_000, streams=1_000)
    assert plan.stream_deltas == 120
    turns, each_s = plan.submitted / 200, plan.background_deltas * 0.5
    assert plan.submitted == 10_700
    assert 500 <= turns * each_s <= 600
    short = Plan(seconds=8, queued=10, streams=1)
    assert (short.stream_deltas, short.background_deltas) == (4, 48)


def test_options_that_make_no_sense_are_refused() -> None:
    for arguments in (["--seconds", "1"], ["--queued", "0"], ["--streams", "0"]):
        with pytest.raises(SystemExit):
            options(arguments)
