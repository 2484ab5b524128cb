"""The queue on the real PostgreSQL: whose turn it is, whatever workers do at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.worker.leases.rules import CommandPlace
from services.worker.leases.store import LeaseStore
from services.worker.queue.rules import NORMAL, PATIENT, URGENT, Parked, QueueBounds, Taken
from services.worker.queue.store import QueueStore
from tests.integration.worker.test_leases import expire, states

BOUNDS = QueueBounds(running=100, per_key=50, overdue_seconds=3600, poll_seconds=1)
NOW = datetime.now(UTC)


def queue(engine: AsyncEngine, owner: str = "a") -> QueueStore:
    return QueueStore(engine, owner=owner, seconds=60)


def leases(engine: AsyncEngine, owner: str = "a") -> LeaseStore:
    return LeaseStore(engine, owner=owner, seconds=60)


def parked(
    response_id: str, key: str = "key_a", *, age_seconds: float = 0, priority: int = NORMAL
) -> Parked:
    accepted_at = NOW - timedelta(seconds=age_seconds)
    return Parked(CommandPlace(response_id, 3, 7), key, priority, accepted_at, "{}")


async def take(
    store: QueueStore, room: int, bounds: QueueBounds = BOUNDS
) -> dict[str, tuple[int, bool]]:
    taken: list[Taken] | None = None
    async with asyncio.timeout(10):
        while taken is None:
            taken = await store.take(room=room, bounds=bounds)
    return {one.place.response_id: (one.claim.attempt, one.claim.cancelled) for one in taken}


async def test_what_is_parked_is_taken_once_with_its_place(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked("r1"), parked("r1")])
    await one.park([parked("r1")])
    [taken] = await one.take(room=5, bounds=BOUNDS) or []
    assert (taken.place, taken.claim.attempt, taken.head) == (CommandPlace("r1", 3, 7), 1, "{}")
    await one.park([parked("r1")])
    assert await take(queue(engine, "b"), 5) == {}
    assert await states(engine) == {"r1": ("running", 1)}


async def test_keys_take_turns_however_much_one_of_them_has_waiting(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked(f"a{n:04}", "key_a", age_seconds=5000 - n) for n in range(1000)])
    await one.park([parked(f"b{n}", "key_b") for n in range(10)])
    bounds = replace(BOUNDS, overdue_seconds=86_400)
    assert sorted(await take(one, 4, bounds)) == ["a0000", "a0001", "b0", "b1"]
    await take(one, 3, bounds)
    running = Counter(
        response_id[0]
        for response_id, (state, _) in (await states(engine)).items()
        if state == "running"
    )
    assert sorted(running.values()) == [3, 4]


async def test_the_key_with_the_fewest_running_is_next(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked(f"a{n}", "key_a", age_seconds=100) for n in range(5)])
    assert len(await take(one, 3)) == 3
    await one.park([parked(f"b{n}", "key_b") for n in range(5)])
    assert {one_[0] for one_ in await take(one, 3)} == {"b"}


async def test_among_many_keys_each_has_one_turn_before_any_has_two(engine: AsyncEngine) -> None:
    one = queue(engine)
    for n in range(3):
        await one.park([parked(f"{key}-{n}", f"key{key}") for key in range(40)])
    for turn in range(3):
        taken = [*await take(one, 30), *await take(one, 10)]
        assert len({response_id.split("-")[0] for response_id in taken}) == 40, turn


async def test_keys_at_their_bound_leave_the_room_to_the_others_of_their_priority(
    engine: AsyncEngine,
) -> None:
    one, bounds = queue(engine), replace(BOUNDS, per_key=1)
    await one.park([parked(f"{key}-{n}", f"key{key}") for key in range(20) for n in range(2)])
    assert len(await take(one, 20, bounds)) == 20
    await one.park([parked("late", "key_late", priority=PATIENT)])
    await one.park([parked("plain", "key_plain")])
    assert list(await take(one, 1, bounds)) == ["plain"]


async def test_of_more_keys_than_are_looked_at_in_one_go_each_has_its_turn(
    engine: AsyncEngine,
) -> None:
    one = queue(engine)
    await one.park([parked(f"{key}-{n}", f"key{key:04}") for key in range(1_200) for n in range(2)])
    taken: list[str] = []
    for _ in range(12):
        taken += await take(one, 100, replace(BOUNDS, per_key=1))
    assert len({response_id.split("-")[0] for response_id in taken}) == len(taken) == 1_200
    assert await take(one, 100, replace(BOUNDS, per_key=1)) == {}


async def test_priority_goes_before_age_and_turn(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked("slow", age_seconds=50, priority=PATIENT)])
    await one.park([parked("plain", age_seconds=20)])
    await one.park([parked("fast", "key_b", priority=URGENT)])
    assert [*await take(one, 1), *await take(one, 1), *await take(one, 1)] == [
        "fast",
        "plain",
        "slow",
    ]


async def test_what_waited_too_long_goes_before_every_priority(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked("old", age_seconds=200, priority=PATIENT)])
    await one.park([parked("fast", priority=URGENT)])
    assert list(await take(one, 1, replace(BOUNDS, overdue_seconds=100))) == ["old"]


async def test_a_key_has_no_more_running_than_its_bound_at_all_workers(
    engine: AsyncEngine,
) -> None:
    bounds = replace(BOUNDS, per_key=3)
    await queue(engine).park([parked(f"a{n}") for n in range(10)])
    shares = await asyncio.gather(*(take(queue(engine, owner), 10, bounds) for owner in "abcd"))
    taken = [response_id for share in shares for response_id in share]
    assert len(taken) == len(set(taken)) == 3
    await leases(engine).finish([(taken[0], 1)])
    assert len(await take(queue(engine), 10, bounds)) == 1


async def test_a_cancelled_response_needs_neither_room_nor_turn(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked(f"a{n}", age_seconds=10) for n in range(5)])
    await leases(engine).cancel("a4")
    assert await take(one, 0) == {"a4": (1, True)}


async def test_a_cancellation_before_the_command_is_kept(engine: AsyncEngine) -> None:
    await leases(engine).cancel("r1")
    await queue(engine).park([parked("r1")])
    assert await take(queue(engine), 0) == {"r1": (1, True)}


async def test_an_expired_response_waits_again_and_is_the_next_attempt(
    engine: AsyncEngine,
) -> None:
    one, other = queue(engine, "a"), queue(engine, "b")
    await one.park([parked("r1")])
    await take(one, 1)
    assert await other.park_expired(most=10) == []
    await expire(engine, "r1")
    assert await leases(engine, "b").abandon_expired(most=10, again_after_seconds=60) == []
    assert await other.park_expired(most=10) == ["r1"]
    assert await leases(engine).renew([("r1", 1)]) == {}
    assert await take(other, 1) == {"r1": (2, False)}
    await leases(engine).finish([("r1", 1)])
    assert await states(engine) == {"r1": ("running", 2)}


async def test_an_end_that_comes_late_still_ends_what_waits_again(engine: AsyncEngine) -> None:
    one = queue(engine)
    await one.park([parked("r1")])
    await take(one, 1)
    await expire(engine, "r1")
    await one.park_expired(most=10)
    await leases(engine).finish([("r1", 1)])
    assert await take(one, 1) == {}


async def test_what_waits_long_is_not_forgotten(engine: AsyncEngine) -> None:
    await queue(engine).park([parked("r1")])
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE worker.leases SET created_at = now() - interval '30 days'")
        )
    assert await leases(engine).forget(days=8, most=10) == 0
    assert await queue(engine).depth() == 1


async def test_foreground_leases_count_for_nothing_here(engine: AsyncEngine) -> None:
    await leases(engine).claim([CommandPlace("f1", 0, 1)])
    await expire(engine, "f1")
    assert await queue(engine).park_expired(most=10) == []
    assert await queue(engine).depth() == 0


ACTIONS = ("park", "take", "finish", "expire", "park_expired", "cancel", "release")
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from("ab"), st.integers(0, 3)), max_size=30
)


class World:
    """Two workers, four responses of two keys; an attempt never has two owners."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._ids = [uuid4().hex for _ in range(4)]
        self._keys = [uuid4().hex for _ in range(2)]
        self._attempts: Counter[str] = Counter()
        self._held: dict[tuple[str, str], int] = {}
        self._finished: set[str] = set()

    async def step(self, action: str, owner: str, which: int) -> None:
        response_id = self._ids[which]
        one = queue(self._engine, owner)
        held = self._held.get((owner, response_id))
        if action == "park":
            await one.park([parked(response_id, self._keys[which % 2])])
        elif action == "take":
            for taken, (attempt, _) in (await take(one, 2, replace(BOUNDS, per_key=1))).items():
                if taken in self._ids:
                    assert taken not in self._finished
                    self._attempts[taken] += 1
                    assert attempt == self._attempts[taken], "an attempt has two owners"
                    self._held[owner, taken] = attempt
        elif action == "expire":
            await expire_running(self._engine, response_id)
        elif action == "park_expired":
            await one.park_expired(most=10)
        elif action == "cancel":
            await leases(self._engine, owner).cancel(response_id)
        elif held is not None:
            store = leases(self._engine, owner)
            if action == "release":
                await store.release([(response_id, held)], orderly=True, again_after_seconds=60)
            else:
                await store.finish([(response_id, held)])
                if held == self._attempts[response_id]:
                    self._finished.add(response_id)

    async def check(self) -> None:
        found = await states(self._engine)
        done = {one for one in self._ids if found.get(one, ("", 0))[0] == "finished"}
        assert done == self._finished


async def expire_running(engine: AsyncEngine, response_id: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE worker.leases SET expires_at = now() - interval '1 second'"
                " WHERE response_id = :id AND state = 'running'"
            ),
            {"id": response_id},
        )


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
async def test_no_interleaving_takes_a_turn_twice(
    engine: AsyncEngine, steps: list[tuple[str, str, int]]
) -> None:
    world = World(engine)
    for action, owner, which in steps:
        await world.step(action, owner, which)
        await world.check()
