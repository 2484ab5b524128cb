"""Rate limits on a real database: two replicas are one limit, and its rule is the pure one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.admission.limiter import Ask, Patience, RateLimiter, Settlement
from services.intake.admission.limits import (
    Limits,
    Standing,
    Use,
    correction,
    drained,
    settled,
    take,
)
from services.intake.admission.limits_store import SharedLimits
from services.intake.errors import ApiError
from services.kit.clock import SystemClock
from services.kit.database import create_engine

LIMITS = Limits(20, 1_000)
PATIENT = Patience(answer_seconds=20.0)
DEBT_MINUTES = 2.0


@pytest.fixture
def store(engine: AsyncEngine) -> SharedLimits:
    return SharedLimits(engine, debt_minutes=DEBT_MINUTES)


@pytest.fixture
async def replicas(engine: AsyncEngine) -> AsyncIterator[list[RateLimiter]]:
    made = [
        RateLimiter(SharedLimits(engine, debt_minutes=DEBT_MINUTES), SystemClock(), PATIENT)
        for _ in range(2)
    ]
    yield made
    for limiter in made:
        await limiter.stop()


async def later(engine: AsyncEngine, seconds: float) -> None:
    """Let so much time have passed, by moving all that is written back."""
    async with engine.begin() as connection:
        for table, column in (
            ("limit_use", "requests_at"),
            ("limit_use", "tokens_at"),
            ("limit_reservations", "reserved_at"),
        ):
            moved = f"UPDATE intake.{table} SET {column} = {column} - CAST(:by AS interval)"
            await connection.execute(text(moved), {"by": timedelta(seconds=seconds)})


async def tokens_used(store: SharedLimits, key_id: str, limits: Limits = LIMITS) -> float:
    return (await store.take([Ask(key_id, limits)]))[0].use.tokens


async def outcomes(replicas: Sequence[RateLimiter], asks: Sequence[Ask]) -> list[bool]:
    """Ask the replicas in turn, all at once; whether each was admitted."""
    found = await asyncio.gather(
        *(replicas[place % len(replicas)].admit(ask) for place, ask in enumerate(asks)),
        return_exceptions=True,
    )
    for outcome in found:
        assert isinstance(outcome, Standing | ApiError), repr(outcome)
    return [isinstance(outcome, Standing) for outcome in found]


async def test_a_clock_that_was_put_back_by_an_hour_locks_nobody_out(
    engine: AsyncEngine, store: SharedLimits
) -> None:
    asks = [Ask("key_back", LIMITS, f"resp_back_{number}", 10) for number in range(30)]
    assert sum(one.admitted for one in await store.take(asks)) == 20
    # All that is written is of an hour that is to come again.
    await later(engine, -3_600)
    assert not (await store.take([Ask("key_back", LIMITS, "resp_back_x", 10)]))[0].admitted
    await later(engine, 30)
    more = [Ask("key_back", LIMITS, f"resp_more_{number}", 10) for number in range(30)]
    assert sum(one.admitted for one in await store.take(more)) == 10
    await store.settle([Settlement("resp_more_0", "key_back", LIMITS, 0)])
    await later(engine, 60)
    assert await tokens_used(store, "key_back") == 0


async def test_two_replicas_together_admit_what_the_limit_says(
    replicas: list[RateLimiter],
) -> None:
    asks = [Ask("key_a", Limits(20, None), f"resp_{number}", 1) for number in range(200)]
    admitted = await outcomes(replicas, asks)
    # A bucket of 20 a minute gets room for one more in three seconds.
    assert 20 <= sum(admitted) <= 22


async def test_two_replicas_share_tokens_and_get_them_back(
    replicas: list[RateLimiter], store: SharedLimits
) -> None:
    limits = Limits(None, 1_000)
    asks = [Ask("key_a", limits, f"resp_{number}", 100) for number in range(40)]
    admitted = await outcomes(replicas, asks)
    assert 10 <= sum(admitted) <= 12
    running = [ask for ask, fine in zip(asks, admitted, strict=True) if fine]
    await store.settle([Settlement(str(ask.response_id), "key_a", limits, 0) for ask in running])
    # What may have drained meanwhile is not given back a second time.
    assert await tokens_used(store, "key_a", limits) < 100
    assert sum(await outcomes(replicas, asks)) >= 9


async def test_keys_do_not_share_their_limits(replicas: list[RateLimiter]) -> None:
    asks = [
        Ask(f"key_{number % 10}", Limits(3, None), f"resp_{number}", 1) for number in range(100)
    ]
    admitted = await outcomes(replicas, asks)
    for key in range(10):
        assert sum(admitted[key::10]) == 3


async def test_waiting_requests_go_together(engine: AsyncEngine) -> None:
    class Counting(SharedLimits):
        statements = 0

        async def take(self, asks: Sequence[Ask]) -> list[Standing]:
            self.statements += 1
            return await super().take(asks)

    counting = Counting(engine, debt_minutes=1)
    limiter = RateLimiter(counting, SystemClock(), PATIENT)
    limits = Limits(10_000, None)
    await outcomes([limiter], [Ask("key_a", limits, f"resp_{n}", 1) for n in range(400)])
    assert counting.statements == 1


async def test_what_was_used_replaces_the_estimate_once(
    engine: AsyncEngine, store: SharedLimits
) -> None:
    await store.take([Ask("key_a", LIMITS, "resp_1", 100), Ask("key_a", LIMITS, "resp_2", 100)])
    settlement = Settlement("resp_1", "key_a", LIMITS, 700)
    for _ in range(3):
        await store.settle([settlement, settlement])
    assert await tokens_used(store, "key_a") == pytest.approx(800, abs=20)
    await store.settle([Settlement("resp_2", "key_a", LIMITS, None)])
    await store.settle([Settlement("resp_2", "key_a", LIMITS, 0)])
    assert await tokens_used(store, "key_a") == pytest.approx(800, abs=20)


async def test_who_used_far_more_than_was_estimated_owes_a_bounded_time(
    engine: AsyncEngine, store: SharedLimits
) -> None:
    await store.take([Ask("key_a", LIMITS, "resp_1", 1)])
    await store.settle([Settlement("resp_1", "key_a", LIMITS, 10**9)])
    assert await tokens_used(store, "key_a") == pytest.approx(1_000 * (1 + DEBT_MINUTES), abs=20)
    refused = (await store.take([Ask("key_a", LIMITS, "resp_2", 1)]))[0]
    assert not refused.admitted
    await later(engine, 60 * DEBT_MINUTES + 1)
    assert (await store.take([Ask("key_a", LIMITS, "resp_3", 1)]))[0].admitted


async def test_a_long_run_gives_nothing_back_that_others_use_now(
    engine: AsyncEngine, store: SharedLimits
) -> None:
    await store.take([Ask("key_a", LIMITS, "resp_long", 900)])
    await later(engine, 300)
    await store.take([Ask("key_a", LIMITS, "resp_now", 800)])
    await store.settle([Settlement("resp_long", "key_a", LIMITS, 0)])
    assert await tokens_used(store, "key_a") == pytest.approx(800, abs=20)


async def test_old_reservations_and_unused_keys_are_forgotten(
    engine: AsyncEngine, store: SharedLimits
) -> None:
    await store.take([Ask("key_old", LIMITS, "resp_old", 1)])
    await later(engine, 3_600)
    await store.take([Ask("key_new", LIMITS, "resp_new", 1)])
    await store.sweep(older_than=timedelta(minutes=30))
    async with engine.connect() as connection:
        left = await connection.execute(text("SELECT response_id FROM intake.limit_reservations"))
        assert left.scalars().all() == ["resp_new"]
        left = await connection.execute(text("SELECT key_id FROM intake.limit_use"))
        assert left.scalars().all() == ["key_new"]


async def test_without_a_database_each_replica_holds_the_limit_alone() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, name="tests")
    limiter = RateLimiter(SharedLimits(engine, debt_minutes=1), SystemClock(), Patience())
    asks = [Ask("key_a", Limits(5, None), f"resp_{number}", 1) for number in range(50)]
    assert sum(await outcomes([limiter], asks)) == 5
    assert sum(await outcomes([limiter], asks)) == 0
    await limiter.stop()
    await engine.dispose()


async def test_what_a_client_did_not_wait_for_is_given_back(
    replicas: list[RateLimiter], store: SharedLimits
) -> None:
    limiter = replicas[0]
    waiting = asyncio.ensure_future(limiter.admit(Ask("key_a", LIMITS, "resp_1", 900)))
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(10):
        while await tokens_used(store, "key_a") > 100 or not waiting.done():
            pass
    assert waiting.cancelled()


class Model:
    """What the database should hold, by the pure rule and a clock that is told the time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.use: dict[str, Use] = {}
        self.reserved: dict[str, tuple[str, int, float]] = {}

    def take(self, ask: Ask) -> Standing:
        use = self.use.get(ask.key_id, Use())
        standing = take(use, self.limits, tokens=ask.tokens, now=self.now)
        self.use[ask.key_id] = standing.use
        if standing.admitted:
            self.reserved[str(ask.response_id)] = (ask.key_id, standing.tokens, self.now)
        return standing

    def settle(self, one: Settlement) -> None:
        key_id, reserved, at = self.reserved.pop(one.response_id)
        if one.tokens is None or self.limits.tokens_per_minute is None:
            return
        limit = self.limits.tokens_per_minute
        use = drained(self.use[key_id], self.limits, now=self.now)
        added = correction(reserved=reserved, used=one.tokens, limit=limit, seconds=self.now - at)
        level = settled(use.tokens, added, limit=limit, debt_minutes=DEBT_MINUTES)
        self.use[key_id] = replace(use, tokens=level)

    def at_the_edge(self, standing: Standing) -> bool:
        """Whether the database's clock, which goes on during the test, may have decided it."""
        use = standing.use
        requests, tokens = (0, 0) if standing.admitted else (1, standing.tokens)
        return any(
            limit is not None and abs(used + cost - limit) < slack
            for limit, used, cost, slack in (
                (self.limits.requests_per_minute, use.requests, requests, 0.5),
                (self.limits.tokens_per_minute, use.tokens, tokens, 30),
            )
        )


batches_of_asks = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.lists(
            st.tuples(
                st.sampled_from("abc"), st.integers(1, 300), st.none() | st.integers(0, 2_000)
            ),
            min_size=1,
            max_size=12,
        ),
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=batches_of_asks,
    limits=st.builds(Limits, st.none() | st.integers(1, 20), st.none() | st.integers(1, 1_000)),
)
async def test_the_database_judges_by_the_pure_rule(
    engine: AsyncEngine,
    store: SharedLimits,
    batches: list[tuple[float, list[tuple[str, int, int | None]]]],
    limits: Limits,
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE intake.limit_use, intake.limit_reservations"))
    model = Model(limits)
    for number, (pause, batch) in enumerate(batches):
        model.now += pause
        await later(engine, pause)
        asks = [
            Ask(key_id, limits, f"resp_{number}_{place}", tokens)
            for place, (key_id, tokens, _) in enumerate(batch)
        ]
        ends = []
        for place, standing in enumerate(await store.take(asks)):
            expected = model.take(asks[place])
            if standing.admitted is not expected.admitted:
                assert model.at_the_edge(expected)
                return
            assert standing.use.requests == pytest.approx(expected.use.requests, abs=0.5)
            assert standing.use.tokens == pytest.approx(expected.use.tokens, abs=30)
            if expected.admitted and place % 2:
                response_id = str(asks[place].response_id)
                ends.append(Settlement(response_id, asks[place].key_id, limits, batch[place][2]))
        await store.settle(ends)
        for end in sorted(ends, key=lambda end: (end.key_id, end.response_id)):
            model.settle(end)
        for key_id, use in model.use.items():
            expected_tokens = drained(use, limits, now=model.now).tokens
            found = await tokens_used(store, key_id, limits)
            assert found == pytest.approx(expected_tokens, abs=30)
