"""A tool loop whose worker dies or stands still anywhere: it ends once, and is paid for once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.domain import Event
from services.worker.errors import LeaseLostError
from tests.unit.worker.runs import check_response, check_stream, events_of
from tests.unit.worker.worlds import Crash, World

WAYS: list[dict[str, Any]] = [
    {"stream": False},
    {"stream": True},
    {"stream": False, "background": True},
    {"stream": True, "background": True},
]
PATIENCE_S = 20


async def live(world: World, way: dict[str, Any], *, begin_at: int = 1) -> dict[str, Any]:
    """Run attempts until one is not interrupted; return the stated Response."""
    number = begin_at
    while True:
        with suppress(Crash):
            await world.attempt(number, **way)
            return world.facts.outcomes[-1][1]
        number += 1


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [{**item, "id": ""} for item in response["output"]]
    return {**response, "output": output}


def told_in(world: World, way: dict[str, Any]) -> list[Event]:
    """The events that the client saw, after checks that hold for every stream."""
    seen = world.seen_by_client()
    response = world.facts.outcomes[-1][1]
    if not way["stream"]:
        [answer] = [part for part in seen.split(b"\n\n") if not part.startswith(b":")]
        assert orjson.loads(answer) == response
        return []
    events = events_of(seen)
    check_stream(events)
    assert events[-1]["response"] == response
    for event in events:
        if "output_index" in event:
            told = event["item"]["id"] if "item" in event else event["item_id"]
            assert told == response["output"][event["output_index"]]["id"]
    return events


def check(world: World, whole: dict[str, Any], way: dict[str, Any]) -> str:
    """Check what holds for every end; return the status."""
    fact, response = world.facts.outcomes[-1]
    check_response(response)
    assert (world.asked_again, world.asked_without_lease) == ([], [])
    assert len(world.executed) <= 4
    events = told_in(world, way)
    # However often the outcome is stated, it is the same one.
    assert all(stated == response for _, stated in world.facts.outcomes)
    assert len({stated.estimated_usage for stated, _ in world.facts.outcomes}) == 1
    if response["status"] == "completed":
        assert without_ids(response) == without_ids(whole)
        assert not fact.estimated_usage
        done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
        assert not way["stream"] or done == response["output"]
    else:
        # Only a reader who was told of a turn that did not end is left with less.
        assert (way["stream"], response["status"]) == (True, "failed")
        assert fact.estimated_usage
        paid = getattr(world.state, "usage", None) or {"output_tokens": 0}
        assert response["usage"]["output_tokens"] > paid["output_tokens"]
    return str(response["status"])


async def undisturbed(way: dict[str, Any]) -> tuple[dict[str, Any], World]:
    world = World()
    return await live(world, way), world


@pytest.mark.parametrize("way", WAYS[:2])
async def test_a_crash_at_any_step_of_a_tool_loop_costs_no_turn_and_no_call_that_ended(
    way: dict[str, Any],
) -> None:
    whole, plain = await undisturbed(way)
    assert whole["usage"]["output_tokens"] == 3 * 3 + 5
    ends: Counter[str] = Counter()
    for at in range(1, plain.steps + 1):
        world = World([at])
        await live(world, way)
        ends[check(world, whole, way)] += 1
    assert ends["completed"] > 0
    assert (ends["failed"] > 0) == way["stream"]


@settings(max_examples=25, deadline=None)
@given(way=st.sampled_from(WAYS), crashes=st.lists(st.integers(1, 60), max_size=4))
def test_any_number_of_crashes_ends_the_same_way(way: dict[str, Any], crashes: list[int]) -> None:
    async def run() -> None:
        whole, _ = await undisturbed(way)
        world = World(crashes)
        await live(world, way)
        check(world, whole, way)

    asyncio.run(run())


async def haunted(way: dict[str, Any], pause: int, meanwhile: int) -> World:
    """Let the first attempt stand still, a second one take over, and the first go on while that
    stands still at its own pause `meanwhile`, 0 for after its end.
    """
    world = World(stands_still=(1, pause))
    async with asyncio.timeout(PATIENCE_S):
        zombie = asyncio.create_task(world.attempt(1, **way))
        await world.still.wait()
        haunting, world.go_on, world.still = world.go_on, asyncio.Event(), asyncio.Event()
        world.stands_still = (2, meanwhile)
        second = asyncio.create_task(world.attempt(2, **way))
        stands = asyncio.create_task(world.still.wait())
        await asyncio.wait({second, stands}, return_when=asyncio.FIRST_COMPLETED)
        stands.cancel()
        haunting.set()
        with suppress(LeaseLostError):
            await zombie
        world.go_on.set()
        await second
    return world


@pytest.mark.parametrize("way", WAYS[:2])
async def test_an_attempt_that_stood_still_beyond_its_lease_says_nothing_that_counts(
    way: dict[str, Any],
) -> None:
    whole, plain = await undisturbed(way)
    for pause in range(1, plain.pauses[1] + 1):
        world = await haunted(way, pause, (0, 1, 2, 3, 4, 8)[pause % 6])
        check(world, whole, way)
