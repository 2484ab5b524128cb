"""Which dead letters were handled, and how that is noted beside an offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.letterbox import Handled, TooScatteredError

OFFSETS = st.lists(st.integers(0, 60), max_size=40)


@given(OFFSETS, st.integers(0, 10))
def test_what_was_handled_is_known_in_whatever_order_and_after_a_note(
    offsets: list[int], before: int
) -> None:
    done = Handled(before)
    for offset in offsets:
        done = done.with_one(offset)
    done = Handled.read(done.before, done.note)
    expected = {*range(before), *offsets}
    assert {offset for offset in range(80) if offset in done} == expected
    assert done.waiting(0, 61) == 61 - len({one for one in expected if one < 61})
    assert min(done.beyond, default=done.before + 1) > done.before


def test_handling_all_in_turn_needs_no_note() -> None:
    done = Handled()
    for offset in range(1_000):
        done = done.with_one(offset)
    assert (done.before, done.note) == (1_000, "")


def test_runs_are_noted_as_such() -> None:
    assert Handled(3, frozenset({5, 6, 7, 9})).note == "5-7,9"


@pytest.mark.parametrize("note", ["somebody else's", "1-x", "-", "1--2"])
def test_a_note_that_is_not_ours_is_none(note: str) -> None:
    assert Handled.read(4, note) == Handled(4)


def test_an_offset_that_was_never_noted_is_the_beginning() -> None:
    assert Handled.read(-1, "") == Handled()


def test_too_many_holes_are_refused() -> None:
    done = Handled(0, frozenset(range(1, 4_000, 2)))
    with pytest.raises(TooScatteredError, match="in turn"):
        _ = done.note
