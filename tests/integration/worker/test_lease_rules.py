"""The rules of leases and the queue together, on the real PostgreSQL, in any order of events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.worker.leases.rules import Claim, CommandPlace
from services.worker.leases.store import LeaseStore
from services.worker.queue.rules import NORMAL, Parked, QueueBounds
from services.worker.queue.store import QueueStore

OWNERS = "abc"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOUNDS = QueueBounds(running=10, per_key=10, overdue_seconds=3_600, poll_seconds=1)
ACTIONS = (
    *("arrive", "arrive", "take", "take", "renew", "finish", "expire", "expire", "sweep"),
    *("sweep", "release", "crash", "cancel", "unknown"),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from(OWNERS), st.integers(0, 3)), max_size=40
)


@dataclass
class Response:
    """What must be true of one response; those of odd numbers run in the background."""

    response_id: str
    background: bool
    accepted: bool = False
    finished: bool = False
    newest: int = 0
    handovers: int = 0
    holders: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> CommandPlace:
        return CommandPlace(self.response_id, 1, 2)


class World:
    """Three workers and what they know; every step checks what the rules promise."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._responses = [Response(uuid4().hex, bool(number % 2)) for number in range(4)]
        self._by_id = {one.response_id: one for one in self._responses}
        self._leases = {owner: LeaseStore(engine, owner=owner, seconds=60) for owner in OWNERS}
        self._queues = {owner: QueueStore(engine, owner=owner, seconds=60) for owner in OWNERS}

    async def step(self, action: str, owner: str, which: int) -> None:
        one = self._responses[which]
        leases, held = self._leases[owner], one.holders.get(owner)
        if action == "arrive":
            await self._arrive(owner, one)
        elif action == "take":
            await self._take(owner)
        elif action == "expire":
            await self._expire(one.response_id)
        elif action == "sweep":
            await self._sweep(owner)
        elif action == "cancel":
            await leases.cancel(one.response_id)
        elif action == "unknown" and not one.background:
            one.accepted = True
            await leases.expect([one.place], after_seconds=60)
        elif held is not None:
            await self._use(action, leases, one, held)

    async def _arrive(self, owner: str, one: Response) -> None:
        """Let a worker read the command, for the first time or again."""
        one.accepted = True
        if one.background:
            parked = Parked(one.place, f"key-{one.response_id}", NORMAL, NOW, "{}")
            await self._queues[owner].park([parked])
        else:
            self._claimed(owner, await self._leases[owner].claim([one.place, one.place]))

    async def _take(self, owner: str) -> None:
        taken = await self._queues[owner].take(room=2, bounds=BOUNDS)
        assert taken is not None
        self._claimed(owner, {found.place.response_id: found.claim for found in taken})

    def _claimed(self, owner: str, claims: dict[str, Claim]) -> None:
        for response_id, claim in claims.items():
            one = self._by_id[response_id]
            assert one.accepted
            assert not one.finished, "what is finished is never run again"
            assert claim.attempt == one.newest + 1, "each attempt has one owner"
            assert claim.handovers == one.handovers
            one.newest = claim.attempt
            one.holders[owner] = claim.attempt

    async def _expire(self, response_id: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE worker.leases SET expires_at = now() - interval '1 second'"
                    " WHERE response_id = :id AND expires_at <> 'infinity'"
                ),
                {"id": response_id},
            )

    async def _sweep(self, owner: str) -> None:
        """Find what expired; the copies of commands come to whoever reads them."""
        await self._queues[owner].park_expired(most=10)
        expired = await self._leases[owner].abandon_expired(most=10, again_after_seconds=60)
        await self._leases[owner].resent(
            [found.place.response_id for found in expired], again_after_seconds=60
        )
        for found in expired:
            assert found.place == self._by_id[found.place.response_id].place, "it can be read"

    async def _use(self, action: str, leases: LeaseStore, one: Response, held: int) -> None:
        pair = [(one.response_id, held)]
        newest = held == one.newest
        running = await self._state(one.response_id) == "running"
        if action == "renew":
            kept = await leases.renew(pair)
            assert bool(kept) == (newest and running), "only the newest attempt has a lease"
        elif action in ("release", "crash"):
            orderly = action == "release"
            await leases.release(pair, orderly=orderly, again_after_seconds=60)
            one.handovers += orderly and newest and running
        elif action == "finish":
            await leases.finish(pair)
            one.finished = one.finished or newest

    async def _state(self, response_id: str) -> str:
        return (await self._rows()).get(response_id, ("", 0))[0]

    async def _rows(self) -> dict[str, tuple[str, int]]:
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT response_id, state, attempt FROM worker.leases"
                    " WHERE response_id = ANY(:ids)"
                ),
                {"ids": list(self._by_id)},
            )
            return {row.response_id: (row.state, row.attempt) for row in rows}

    async def check(self) -> None:
        rows = await self._rows()
        for one in self._responses:
            state, attempt = rows.get(one.response_id, ("", 0))
            assert attempt == one.newest, "attempts only grow, by claims alone"
            assert (state == "finished") == one.finished, "what is finished stays so"
            assert not one.accepted or state, "what was accepted is known"

    async def recover(self) -> None:
        """Whatever happened: with time and a worker that lives, all that is open is run."""
        before = {one.response_id: one.newest for one in self._responses}
        for one in self._responses:
            await self._expire(one.response_id)
        await self._sweep("c")
        for one in self._responses:
            if one.accepted and not one.background:
                await self._arrive("c", one)
        await self._take("c")
        await self._take("c")
        for one in self._responses:
            if one.accepted and not one.finished:
                assert one.newest == before[one.response_id] + 1, "it can be claimed"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
async def test_whatever_happens_there_is_one_holder_an_end_is_final_and_nothing_is_lost(
    engine: AsyncEngine, steps: list[tuple[str, str, int]]
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE worker.leases"))
    world = World(engine)
    for action, owner, which in steps:
        await world.step(action, owner, which)
        await world.check()
    await world.recover()
