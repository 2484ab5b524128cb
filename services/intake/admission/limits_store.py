"""The use of keys in PostgreSQL, shared by all replicas; the rule is that of `limits`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.admission.limiter import Ask, Settlement
from services.intake.admission.limits import Standing, Use, cost_of
from services.kit.outages import OUTAGES
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_SWEEP_SECONDS = 600.0
_TAKE = text("""
    SELECT place, admitted, requests, tokens FROM intake.take_limits(
        CAST(:key_ids AS text[]), CAST(:response_ids AS text[]), CAST(:tokens AS bigint[]),
        CAST(:request_limits AS bigint[]), CAST(:token_limits AS bigint[])
    )
""")
_SETTLE = text("""
    SELECT intake.settle_limits(
        CAST(:response_ids AS text[]), CAST(:key_ids AS text[]), CAST(:tokens AS bigint[]),
        CAST(:token_limits AS bigint[]), CAST(:debt_minutes AS double precision)
    )
""")
_SWEEP = text("""
    WITH forgotten AS (
        DELETE FROM intake.limit_reservations WHERE reserved_at < now() - CAST(:age AS interval)
    )
    DELETE FROM intake.limit_use
    WHERE greatest(requests_at, tokens_at) < now() - CAST(:age AS interval)
""")


class SharedLimits:
    """Buckets and reservations. The clock is the database's, so that replicas agree on it."""

    def __init__(self, engine: AsyncEngine, *, debt_minutes: float) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._debt_minutes = debt_minutes

    async def take(self, asks: Sequence[Ask]) -> list[Standing]:
        """Judge requests one after the other, reserve what is admitted; one answer for each."""
        costs = [cost_of(ask.tokens, ask.limits) for ask in asks]
        values = {
            "key_ids": [ask.key_id for ask in asks],
            "response_ids": [ask.response_id for ask in asks],
            "tokens": costs,
            "request_limits": [ask.limits.requests_per_minute for ask in asks],
            "token_limits": [ask.limits.tokens_per_minute for ask in asks],
        }
        async with self._engine.connect() as connection:
            rows = (await connection.execute(_TAKE, values)).all()
        found = {
            place: (admitted, Use(requests, tokens)) for place, admitted, requests, tokens in rows
        }
        return [
            Standing(ask.limits, found[place][0], found[place][1], cost)
            for place, (ask, cost) in enumerate(zip(asks, costs, strict=True), start=1)
        ]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Replace reservations by what was used; one that is not there any more is passed over."""
        limited = [one for one in settlements if one.limits.tokens_per_minute is not None]
        if not limited:
            return
        values = {
            "response_ids": [one.response_id for one in limited],
            "key_ids": [one.key_id for one in limited],
            "tokens": [one.tokens for one in limited],
            "token_limits": [one.limits.tokens_per_minute for one in limited],
            "debt_minutes": self._debt_minutes,
        }
        async with self._engine.connect() as connection:
            await connection.execute(_SETTLE, values)

    async def sweep(self, *, older_than: timedelta) -> None:
        """Forget reservations of responses whose end never came, and keys that nobody uses."""
        async with self._engine.connect() as connection:
            await connection.execute(_SWEEP, {"age": older_than})


class LimitSweeper:
    """Forgets now and then what no limit needs any more, at each replica: twice is harmless."""

    def __init__(self, limits: SharedLimits, engine: AsyncEngine, *, hours: float) -> None:
        self._limits = limits
        self._engine = engine
        self._age = timedelta(hours=hours)
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin."""
        self._tasks.spawn(self._run(), name="limit sweeper")

    async def stop(self) -> None:
        """End, and close the connections that limits have for themselves."""
        await self._tasks.stop()
        await self._engine.dispose()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self._limits.sweep(older_than=self._age)
            except OUTAGES as error:
                logger.warning("old reservations stay for now: %r", error)
