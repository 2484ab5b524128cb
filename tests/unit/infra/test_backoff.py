"""How long the supervisor waits before it starts a part again."""

from hypothesis import given
from hypothesis import strategies as st

from infra.local.backoff import Backoff


def test_waits_double_from_the_first_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, factor=2, longest_s=3)
    assert [backoff.wait_s(n) for n in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_a_calm_run_makes_the_next_end_the_first_one() -> None:
    backoff = Backoff(calm_s=60)
    assert backoff.failures_after(7, ran_s=60) == 1
    assert backoff.failures_after(7, ran_s=59) == 8


@given(st.integers(min_value=1, max_value=10**9))
def test_a_wait_is_bounded_however_often_a_part_ends(failures: int) -> None:
    backoff = Backoff()
    assert backoff.first_s <= backoff.wait_s(failures) <= backoff.longest_s
