"""The circuit breaker: when it opens, what it lets through, and that it always heals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.worker.providers.breaker import Breaker, BreakerRule, State

RULE = BreakerRule(failures=3, rate=0.5, min_calls=6, window_seconds=10, open_seconds=5, probes=2)


def call(breaker: Breaker, now: float, *, failed: bool | None) -> bool:
    ticket = breaker.admit(now)
    if ticket is None:
        return False
    breaker.settle(ticket, failed=failed, now=now)
    return True


def opened(now: float = 0.0, rule: BreakerRule = RULE) -> Breaker:
    breaker = Breaker(rule)
    for _ in range(rule.failures):
        call(breaker, now, failed=True)
    assert breaker.state(now) is State.OPEN
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(RULE)
    for failed in (True, True, False, True, True):
        call(breaker, 0, failed=failed)
    assert breaker.state(0) is State.CLOSED
    call(breaker, 0, failed=True)
    assert breaker.state(0) is State.OPEN
    assert breaker.admit(1) is None
    assert breaker.opens_in(1) == 4


def test_a_share_of_failures_opens_it_once_there_were_enough_calls() -> None:
    breaker = Breaker(RULE)
    for failed in (False, True, False, True):
        call(breaker, 0, failed=failed)
    assert breaker.state(0) is State.CLOSED
    for failed in (False, True):
        call(breaker, 1, failed=failed)
    assert breaker.state(1) is State.OPEN


def test_failures_before_the_window_are_forgotten() -> None:
    breaker = Breaker(RULE)
    for now in (0, 20, 40, 60, 80, 100):
        call(breaker, now, failed=False)
        call(breaker, now, failed=True)
    assert breaker.state(100) is State.CLOSED


def test_probes_that_succeed_close_it_and_one_that_fails_opens_it_again() -> None:
    breaker = opened()
    assert breaker.state(5) is State.HALF_OPEN
    call(breaker, 5, failed=False)
    assert breaker.state(5) is State.HALF_OPEN
    call(breaker, 5, failed=False)
    assert breaker.state(5) is State.CLOSED

    breaker = opened()
    call(breaker, 6, failed=True)
    assert breaker.state(10) is State.OPEN
    assert breaker.state(11) is State.HALF_OPEN


def test_no_more_than_so_many_probes_are_under_way() -> None:
    breaker = opened()
    first, second = breaker.admit(5), breaker.admit(5)
    assert first is not None
    assert second is not None
    assert breaker.admit(5) is None
    breaker.settle(first, failed=None, now=6)
    assert breaker.admit(6) is not None


def test_a_probe_that_is_being_answered_keeps_nobody_waiting() -> None:
    breaker = opened()
    first, second = breaker.admit(5), breaker.admit(5)
    assert first is not None
    assert second is not None
    assert breaker.answered(first, 5)
    third = breaker.admit(5)
    assert third is not None
    assert breaker.answered(second, 6)
    assert breaker.state(6) is State.CLOSED
    # The third was admitted as a probe of a breaker that is closed since.
    assert not breaker.answered(third, 6)
    breaker.settle(third, failed=True, now=7)
    assert breaker.state(7) is State.CLOSED


def test_an_answer_that_begins_decides_nothing_while_it_is_closed() -> None:
    breaker = Breaker(RULE)
    ticket = breaker.admit(0)
    assert ticket is not None
    assert not breaker.answered(ticket, 0)


def test_calls_from_before_it_opened_decide_nothing() -> None:
    breaker = Breaker(RULE)
    early = breaker.admit(0)
    assert early is not None
    for _ in range(RULE.failures):
        call(breaker, 0, failed=True)
    breaker.settle(early, failed=False, now=6)
    assert breaker.state(6) is State.HALF_OPEN
    breaker.settle(early, failed=True, now=6)
    assert breaker.state(6) is State.HALF_OPEN


def test_one_that_is_switched_off_never_opens() -> None:
    breaker = Breaker(BreakerRule(failures=0))
    for _ in range(100):
        assert call(breaker, 0, failed=True)


RULES = st.builds(
    BreakerRule,
    failures=st.integers(1, 5),
    rate=st.floats(0.1, 1),
    min_calls=st.integers(1, 10),
    window_seconds=st.floats(1, 30),
    open_seconds=st.floats(0.5, 20),
    probes=st.integers(1, 3),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 10)),
        st.tuples(st.just("admit"), st.just(0.0)),
        st.tuples(st.sampled_from(("fail", "succeed", "leave")), st.integers(0, 5)),
    ),
    max_size=80,
)


VERDICTS = {"fail": True, "succeed": False, "leave": None}
CHANGES: dict[str, set[tuple[State, State]]] = {
    "wait": {(State.OPEN, State.HALF_OPEN)},
    "admit": set(),
    "fail": {(State.CLOSED, State.OPEN), (State.HALF_OPEN, State.OPEN)},
    "succeed": {(State.HALF_OPEN, State.CLOSED)},
    "leave": set(),
}


@given(RULES, STEPS)
def test_whatever_happens_it_lets_nothing_through_while_open_and_heals(
    rule: BreakerRule, steps: list[tuple[str, float]]
) -> None:
    breaker, now = Breaker(rule), 0.0
    under_way: list[int] = []
    for action, value in steps:
        before = breaker.state(now)
        if action == "wait":
            now += value
        elif action == "admit":
            ticket = breaker.admit(now)
            assert before is State.HALF_OPEN or (ticket is None) == (before is State.OPEN)
            under_way += [] if ticket is None else [ticket]
        elif under_way:
            ticket = under_way.pop(int(value) % len(under_way))
            breaker.settle(ticket, failed=VERDICTS[action], now=now)
        after = breaker.state(now)
        assert (before, after) in {(one, one) for one in State} | CHANGES[action]
    for ticket in under_way:
        breaker.settle(ticket, failed=None, now=now)
    now += rule.open_seconds + 1
    for _ in range(rule.probes):
        assert call(breaker, now, failed=False)
    assert breaker.state(now) is State.CLOSED


@given(RULES, st.lists(st.tuples(st.floats(0, 5), st.sampled_from((False, None))), max_size=60))
def test_without_failures_it_never_opens(
    rule: BreakerRule, calls: list[tuple[float, bool | None]]
) -> None:
    breaker, now = Breaker(rule), 0.0
    for wait, failed in calls:
        now += wait
        assert call(breaker, now, failed=failed)
    assert breaker.state(now) is State.CLOSED
