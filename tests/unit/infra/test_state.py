"""How the state of a stack follows from its parts."""

import pytest

from infra.local.state import PartStatus, StackStatus, State


def stack(state: State, *parts: State) -> StackStatus:
    named = [PartStatus(str(number), part) for number, part in enumerate(parts)]
    return StackStatus(state, pid=1, started_at=0, url="http://127.0.0.1:1", parts=named)


def test_a_stack_is_ready_when_its_parts_serve_and_its_jobs_are_done() -> None:
    assert stack(State.READY, State.READY, State.DONE, State.EXTERNAL).overall is State.READY


@pytest.mark.parametrize("part", [State.STARTING, State.RESTARTING, State.STOPPED])
def test_a_stack_with_a_part_that_does_not_serve_is_not_ready(part: State) -> None:
    assert stack(State.READY, State.READY, part).overall is State.RESTARTING


def test_a_stack_that_starts_or_stops_says_so_whatever_its_parts_are() -> None:
    assert stack(State.STARTING, State.WAITING).overall is State.STARTING
    assert stack(State.STOPPING, State.READY).overall is State.STOPPING
