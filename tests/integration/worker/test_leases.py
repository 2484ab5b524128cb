"""Leases on the real PostgreSQL: one owner per attempt, whatever workers do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.worker.checkpoints.store import CheckpointStore
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.rules import MOST_HANDOVERS, CommandPlace, Expired
from services.worker.leases.store import LeaseStore
from services.worker.leases.sweeps import Sweeper

PATIENCE_SECONDS = 20


def store(engine: AsyncEngine, owner: str = "a", seconds: float = 60.0) -> LeaseStore:
    return LeaseStore(engine, owner=owner, seconds=seconds)


def place(response_id: str, offset: int = 1) -> CommandPlace:
    return CommandPlace(response_id, 0, offset)


async def claim(by: LeaseStore, *ids: str) -> dict[str, int]:
    claims = await by.claim([place(one) for one in ids])
    return {taken: one.attempt for taken, one in claims.items()}


async def expire(engine: AsyncEngine, *ids: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE worker.leases SET expires_at = now() - interval '1 second'"
                " WHERE response_id = ANY(:ids)"
            ),
            {"ids": list(ids)},
        )


async def release(
    by: LeaseStore, *held: tuple[str, int], orderly: bool = True
) -> list[CommandPlace]:
    return await by.release(held, orderly=orderly, again_after_seconds=60)


async def due_seconds(engine: AsyncEngine, response_id: str) -> float:
    async with engine.connect() as connection:
        row = await connection.execute(
            text(
                "SELECT extract(epoch FROM expires_at - now()) FROM worker.leases"
                " WHERE response_id = :id"
            ),
            {"id": response_id},
        )
        return float(row.scalar_one())


async def states(engine: AsyncEngine) -> dict[str, tuple[str, int]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT response_id, state, attempt FROM worker.leases")
        )
        return {row.response_id: (row.state, row.attempt) for row in rows}


async def test_a_command_is_claimed_once(engine: AsyncEngine) -> None:
    first, second = store(engine, "a"), store(engine, "b")
    assert await claim(first, "r1", "r2") == {"r1": 1, "r2": 1}
    assert await claim(second, "r1", "r2", "r3") == {"r3": 1}
    assert await claim(first, "r1") == {}


async def test_a_batch_may_name_a_response_twice(engine: AsyncEngine) -> None:
    assert await claim(store(engine), "r1", "r1", "r2") == {"r1": 1, "r2": 1}


async def test_an_expired_lease_goes_to_the_next_who_claims_it(engine: AsyncEngine) -> None:
    first, second = store(engine, "a"), store(engine, "b")
    await claim(first, "r1")
    await expire(engine, "r1")
    assert await claim(second, "r1") == {"r1": 2}
    assert await first.renew([("r1", 1)]) == {}
    assert await second.renew([("r1", 2)]) == {"r1": False}


async def test_a_lost_attempt_can_not_finish_the_response(engine: AsyncEngine) -> None:
    first, second = store(engine, "a"), store(engine, "b")
    await claim(first, "r1")
    await expire(engine, "r1")
    await claim(second, "r1")
    await first.finish([("r1", 1)])
    assert await release(first, ("r1", 1)) == []
    assert await states(engine) == {"r1": ("running", 2)}


async def test_what_is_finished_is_never_claimed_again(engine: AsyncEngine) -> None:
    one = store(engine)
    await claim(one, "r1")
    await one.finish([("r1", 1)])
    await expire(engine, "r1")
    assert await claim(one, "r1") == {}
    assert await one.abandon_expired(most=10, again_after_seconds=60) == []
    await one.cancel("r1")
    assert await states(engine) == {"r1": ("finished", 1)}


async def test_an_expired_lease_is_abandoned_once_and_told_again_later(engine: AsyncEngine) -> None:
    one = store(engine)
    await one.claim([place("r1", 7), place("r2", 8)])
    await expire(engine, "r1")
    told = await one.abandon_expired(most=10, again_after_seconds=60)
    assert told == [Expired(place("r1", 7), resent=0)]
    assert await one.abandon_expired(most=10, again_after_seconds=60) == []
    await expire(engine, "r1")
    again = await one.abandon_expired(most=10, again_after_seconds=60)
    assert again == [Expired(place("r1", 7), resent=0)]
    assert await claim(one, "r1") == {"r1": 2}


async def test_the_owner_of_an_abandoned_lease_has_lost_it(engine: AsyncEngine) -> None:
    one = store(engine)
    await claim(one, "r1")
    await expire(engine, "r1")
    await one.abandon_expired(most=10, again_after_seconds=60)
    assert await one.renew([("r1", 1)]) == {}


async def test_a_released_lease_is_open_at_once(engine: AsyncEngine) -> None:
    one = store(engine)
    await claim(one, "r1")
    assert await release(one, ("r1", 1)) == [place("r1")]
    assert await claim(store(engine, "b"), "r1") == {"r1": 2}


async def test_an_orderly_release_is_no_failed_attempt_and_any_other_is(
    engine: AsyncEngine,
) -> None:
    one = store(engine)
    for orderly, tries in ((True, 1), (True, 1), (False, 1), (True, 2), (False, 2), (True, 3)):
        [taken] = (await one.claim([place("r1")])).values()
        assert taken.tries == tries
        await release(one, ("r1", taken.attempt), orderly=orderly)
    assert await states(engine) == {"r1": ("abandoned", 6)}


async def test_handovers_beyond_a_bound_are_failures_too(engine: AsyncEngine) -> None:
    one = store(engine)
    tries = 0
    for _ in range(MOST_HANDOVERS + 3):
        [taken] = (await one.claim([place("r1")])).values()
        tries = taken.tries
        await release(one, ("r1", taken.attempt))
    assert tries == 3


async def test_a_claim_tells_when_the_first_attempt_began(engine: AsyncEngine) -> None:
    one = store(engine)
    [first] = (await one.claim([place("r1")])).values()
    await release(one, ("r1", 1))
    [second] = (await one.claim([place("r1")])).values()
    assert first.since is not None
    assert second.since == first.since


async def test_an_attempt_of_a_worker_that_noted_no_time_leaves_the_beginning_unknown(
    engine: AsyncEngine,
) -> None:
    one = store(engine)
    await claim(one, "r1")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE worker.leases SET first_claimed_at = NULL"))
    await expire(engine, "r1")
    [taken] = (await one.claim([place("r1")])).values()
    assert (taken.attempt, taken.since) == (2, None)


async def test_a_command_that_nobody_takes_is_due_ever_later_until_it_is_taken(
    engine: AsyncEngine,
) -> None:
    one = store(engine)
    await claim(one, "r1")
    waits: list[float] = []
    for _ in range(9):
        await expire(engine, "r1")
        [expired] = await one.abandon_expired(most=10, again_after_seconds=5)
        await one.resent(["r1"], again_after_seconds=5)
        waits.append(await due_seconds(engine, "r1"))
        assert expired.resent == len(waits) - 1
    assert [round(wait / 5) for wait in waits] == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    await claim(one, "r1")
    await expire(engine, "r1")
    assert (await one.abandon_expired(most=10, again_after_seconds=5))[0].resent == 0


async def test_a_command_that_is_expected_is_told_later_and_claimed_as_the_first_attempt(
    engine: AsyncEngine,
) -> None:
    one = store(engine)
    await claim(one, "running")
    await one.expect([place("new", 9), place("new", 9), place("running", 9)], after_seconds=60)
    assert await states(engine) == {"running": ("running", 1), "new": ("abandoned", 0)}
    assert await one.abandon_expired(most=10, again_after_seconds=60) == []
    await expire(engine, "new")
    told = await one.abandon_expired(most=10, again_after_seconds=60)
    assert told == [Expired(place("new", 9), resent=0)]
    assert await claim(one, "new") == {"new": 1}


async def test_what_nobody_can_run_is_closed_for_ever(engine: AsyncEngine) -> None:
    one = store(engine)
    await one.expect([place("r1")], after_seconds=0)
    await one.end(["r1"])
    assert await claim(one, "r1") == {}
    assert await states(engine) == {"r1": ("finished", 0)}


async def test_a_cancellation_reaches_whoever_claims_next(engine: AsyncEngine) -> None:
    one = store(engine)
    await one.cancel("r1")
    assert await one.abandon_expired(most=10, again_after_seconds=60) == []
    [taken] = (await one.claim([place("r1")])).values()
    assert (taken.attempt, taken.cancelled) == (1, True)


async def test_old_finished_leases_are_forgotten_and_no_others(engine: AsyncEngine) -> None:
    one = store(engine)
    await claim(one, "r1", "r2", "r3")
    await one.finish([("r1", 1), ("r2", 1)])
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE worker.leases SET created_at = now() - interval '9 days'")
        )
    assert await one.forget(days=8, most=1) == 1
    assert await one.forget(days=8, most=10) == 1
    assert await states(engine) == {"r3": ("running", 1)}


async def test_workers_that_claim_the_same_at_once_share_it_out(engine: AsyncEngine) -> None:
    ids = [f"r{number}" for number in range(50)]
    shares = await asyncio.gather(
        *(claim(store(engine, owner), *ids[:: 1 - 2 * (n % 2)]) for n, owner in enumerate("abcd"))
    )
    taken = [response_id for share in shares for response_id in share]
    assert sorted(taken) == sorted(ids)


ACTIONS = ("claim", "renew", "finish", "release", "expire", "sweep", "cancel")
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from("ab"), st.integers(0, 1)), max_size=25
)


class World:
    """Two workers and two responses; every step checks what must hold after it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._ids = [uuid4().hex, uuid4().hex]
        self._stores = {owner: store(engine, owner) for owner in "ab"}
        self._held: dict[tuple[str, str], int] = {}
        self._attempts: dict[str, list[str]] = {response_id: [] for response_id in self._ids}
        self.finished: set[str] = set()

    async def step(self, action: str, owner: str, which: int) -> None:
        one, response_id = self._stores[owner], self._ids[which]
        held = self._held.get((owner, response_id))
        if action == "claim":
            await self._claim(owner, response_id)
        elif action == "expire":
            await expire(self._engine, response_id)
        elif action == "sweep":
            await one.abandon_expired(most=10, again_after_seconds=60)
        elif action == "cancel":
            await one.cancel(response_id)
        elif held is not None:
            await self._use(action, one, response_id, held)

    async def _claim(self, owner: str, response_id: str) -> None:
        for attempt in (await claim(self._stores[owner], response_id)).values():
            assert response_id not in self.finished
            self._attempts[response_id].append(owner)
            assert attempt == len(self._attempts[response_id]), "an attempt has two owners"
            self._held[owner, response_id] = attempt

    async def _use(self, action: str, one: LeaseStore, response_id: str, held: int) -> None:
        newest = held == len(self._attempts[response_id])
        if action == "renew":
            kept = bool(await one.renew([(response_id, held)]))
            assert not kept or (newest and response_id not in self.finished)
        elif action == "release":
            await release(one, (response_id, held))
        else:
            await one.finish([(response_id, held)])
            if newest:
                self.finished.add(response_id)

    async def check(self) -> None:
        found = await states(self._engine)
        done = {one for one in self._ids if found.get(one, ("", 0))[0] == "finished"}
        assert done == self.finished


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
async def test_no_interleaving_gives_an_attempt_to_two_workers(
    engine: AsyncEngine, steps: list[tuple[str, str, int]]
) -> None:
    world = World(engine)
    for action, owner, which in steps:
        await world.step(action, owner, which)
        await world.check()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - a row sets no event
            await asyncio.sleep(0.01)


async def test_a_keeper_renews_what_it_holds_and_tells_what_it_lost(engine: AsyncEngine) -> None:
    lost: list[str] = []
    fatal: list[BaseException] = []
    keeper = LeaseKeeper(store(engine, "a", 3.0), seconds=3.0, on_fatal=fatal.append)
    keeper.on_lost = lost.append
    await keeper.start()
    await keeper.claim([place("kept"), place("taken")])
    await store(engine, "b").abandon_expired(most=10, again_after_seconds=60)
    await expire(engine, "taken")
    await claim(store(engine, "b"), "taken")

    async def told() -> bool:
        return lost == ["taken"]

    await until(told)
    assert await claim(store(engine, "b"), "kept") == {}
    assert keeper.held == 1
    await keeper.stop()
    assert await claim(store(engine, "b"), "kept") == {"kept": 2}
    assert fatal == []


async def test_a_keeper_hears_of_what_is_cancelled_after_its_claim(engine: AsyncEngine) -> None:
    cancelled: list[str] = []
    keeper = LeaseKeeper(store(engine, "a", 0.6), seconds=0.6, on_fatal=lambda _: None)
    keeper.on_cancelled = cancelled.append
    await keeper.start()
    await keeper.claim([place("stopped"), place("kept")])
    await store(engine, "b").cancel("stopped")

    async def told() -> bool:
        return "stopped" in cancelled

    await until(told)
    assert set(cancelled) == {"stopped"}
    await keeper.stop()


async def test_a_keeper_that_stops_notes_what_is_finished(engine: AsyncEngine) -> None:
    keeper = LeaseKeeper(store(engine), seconds=60, on_fatal=lambda _: None)
    await keeper.start()
    await keeper.claim([place("r1"), place("r2")])
    keeper.finish("r1", 1)
    await keeper.stop()
    assert await states(engine) == {"r1": ("finished", 1), "r2": ("abandoned", 1)}


async def test_the_end_of_an_overtaken_attempt_leaves_the_checkpoint_to_the_later_one(
    engine: AsyncEngine,
) -> None:
    keeper = LeaseKeeper(store(engine), seconds=60, on_fatal=lambda _: None)
    noted = asyncio.Event()
    keeper.on_noted = noted.set
    await keeper.start()
    await keeper.claim([place("r1")])
    await expire(engine, "r1")
    assert (await keeper.claim([place("r1")]))["r1"].attempt == 2
    checkpoints = CheckpointStore(engine)
    await checkpoints.take_over("r1", 2)
    keeper.checkpointed("r1")

    keeper.finish("r1", 1)
    await asyncio.wait_for(noted.wait(), 10)
    keeper.finish("r1", 2)
    await keeper.stop()
    assert await states(engine) == {"r1": ("finished", 2)}
    async with engine.connect() as connection:
        left = await connection.execute(text("SELECT response_id FROM worker.checkpoints"))
        assert left.all() == []


async def test_what_is_dropped_is_not_renewed_and_not_finished(engine: AsyncEngine) -> None:
    keeper = LeaseKeeper(store(engine, "a", 0.3), seconds=0.3, on_fatal=lambda _: None)
    await keeper.start()
    await keeper.claim([place("r1")])
    keeper.drop("r1", 1)

    async def taken() -> bool:
        return await claim(store(engine, "b"), "r1") == {"r1": 2}

    await until(taken)
    await keeper.stop()


class Commands:
    """Where a sweeper sends; fails as it is told to."""

    def __init__(self, failures: list[OSError], hopeless: Sequence[str] = ()) -> None:
        self.failures = failures
        self.hopeless = list(hopeless)
        self.sent: list[Expired] = []

    async def send_again(self, expired: Sequence[Expired]) -> list[str]:
        if self.failures:
            raise self.failures.pop()
        self.sent += expired
        return self.hopeless


async def test_a_sweeper_sends_expired_commands_again_and_outlasts_a_failure(
    engine: AsyncEngine,
) -> None:
    one = store(engine)
    commands = Commands([OSError("away")])
    fatal: list[BaseException] = []
    await claim(one, "r1")
    await expire(engine, "r1")
    sweeper = Sweeper(one, commands, every_seconds=0.02, on_fatal=fatal.append)
    await sweeper.start()

    async def failed_once() -> bool:
        return not commands.failures

    await until(failed_once)
    await expire(engine, "r1")

    async def told() -> bool:
        return commands.sent == [Expired(place("r1"), resent=0)]

    await until(told)
    await sweeper.stop()
    assert fatal == []


async def test_a_sweeper_closes_what_nobody_can_run(engine: AsyncEngine) -> None:
    one = store(engine)
    commands = Commands([], hopeless=["r1"])
    await claim(one, "r1", "r2")
    await expire(engine, "r1", "r2")
    sweeper = Sweeper(one, commands, every_seconds=0.02, on_fatal=lambda _: None)
    await sweeper.start()

    async def closed() -> bool:
        return await states(engine) == {"r1": ("finished", 1), "r2": ("abandoned", 1)}

    await until(closed)
    await sweeper.stop()
    assert len(commands.sent) == 2


async def test_a_keeper_that_stops_hands_over_what_it_holds(engine: AsyncEngine) -> None:
    for orderly, tries in ((True, 1), (False, 2)):
        told: list[CommandPlace] = []

        async def released(places: Sequence[CommandPlace], told: Any = told) -> None:
            told.extend(places)

        name = f"r{tries}"
        keeper = LeaseKeeper(store(engine), seconds=60, on_fatal=lambda _: None)
        keeper.on_released = released
        keeper.orderly = partial(bool, orderly)
        await keeper.start()
        await keeper.claim([place(name)])
        await keeper.stop()
        assert told == [place(name)]
        [taken] = (await store(engine, "b").claim([place(name)])).values()
        assert (taken.attempt, taken.tries) == (2, tries)


async def test_a_keeper_that_can_not_hand_over_leaves_leases_to_expire(
    engine: AsyncEngine,
) -> None:
    keeper = LeaseKeeper(store(engine), seconds=60, on_fatal=lambda _: None)
    await keeper.start()
    await keeper.claim([place("r1")])
    keeper.drop_all()
    await keeper.stop()
    assert await states(engine) == {"r1": ("running", 1)}
