"""The plan of a chaos run depends on its seed, and on nothing else."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.schedule import LEASE_S, Fault, Round, kinds, schedule


def faults(rounds: tuple[Round, ...]) -> list[Fault]:
    return [fault for one in rounds for fault in one.faults]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = schedule(3, 120), schedule(3, 600)
    assert long[: len(short)] == short


def test_ten_minutes_see_every_kind_of_fault() -> None:
    for seed in range(20):
        assert {fault.kind for fault in faults(schedule(seed, 600))} == set(kinds(3))


def test_rounds_leave_time_to_recover_and_end_before_the_run_does() -> None:
    for seed in range(50):
        rounds = schedule(seed, 200)
        over = [max(fault.at_s + fault.seconds for fault in one.faults) for one in rounds]
        assert over[-1] <= 194
        for (_, last), (following, _) in itertools.pairwise(zip(rounds, over, strict=True)):
            assert following.at_s - last >= 5.9


def test_a_paused_worker_outlasts_its_lease() -> None:
    paused = [fault for fault in faults(schedule(1, 3_000, ["pause"])) if fault.kind == "pause"]
    assert paused
    assert all(fault.seconds > LEASE_S + 1 for fault in paused)


def test_only_the_faults_that_are_wanted_come() -> None:
    assert {fault.kind for fault in faults(schedule(1, 300, ["cut", "kill"]))} == {"cut", "kill"}
    with pytest.raises(ValueError, match="unknown faults \\['flood'\\]; there are kill, pause"):
        schedule(1, 300, ["flood"])


def test_with_one_broker_no_other_is_killed() -> None:
    targets = {f.target for f in faults(schedule(1, 2_000, ["kill-broker"], brokers=1))}
    assert targets == {"kafka"}


def test_a_plan_reads_as_one_line_a_fault() -> None:
    fault = Fault(at_s=4, kind="cut", target="kafka", seconds=2.5, who="worker", numbers={"n": 2.0})
    assert str(fault) == "   4.0 s  cut kafka for 2.5 s of worker n=2"
