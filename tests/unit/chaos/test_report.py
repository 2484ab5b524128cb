"""What a chaos run tells a person at its end."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import MOST_SHOWN, report
from tests.chaos.run import RECOVERY_S, Outcome, Recovery


def recovery(seconds: float | None, problem: str = "") -> Recovery:
    return Recovery(
        faults=["   4.0 s  kill worker"],
        met=["pid 7"],
        at_s=4.0,
        over_s=6.0,
        seconds=seconds,
        last_problem=problem,
    )


def test_a_recovery_within_the_bar_is_none_of_the_violations() -> None:
    assert recovery(RECOVERY_S).violation is None
    late = recovery(RECOVERY_S + 1, "JSON at intake: 503").violation
    assert late == (
        "recovery: only after 16.0 s within 15 s of [4.0 s  kill worker]: JSON at intake: 503"
    )
    assert "not within 15 s" in str(recovery(None).violation)


def test_a_run_without_violations_says_so() -> None:
    told = report(Outcome([], recoveries=[recovery(1.5)], counts={"accepted": 12}), Path("home"))
    assert "1.5 s  4.0 s kill worker" in told
    assert "      12  accepted" in told
    assert told.endswith("no violations.\n")


def test_many_violations_of_one_area_do_not_hide_those_of_another() -> None:
    many = [f"costs: resp_{number}: doubled" for number in range(MOST_SHOWN + 5)]
    told = report(Outcome([], violations=[*many, "leases: resp_x: left over"]), Path("home"))
    assert "26 VIOLATIONS; data and logs are in home:" in told
    assert "... 5 more of costs, see the report" in told
    assert "leases: resp_x: left over" in told
