"""Statements on asyncpg itself, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine, refuses_values
from services.kit.direct import DirectStatements

_OTHERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'antiphon-direct'"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=1, name="direct")
    yield engine
    await engine.dispose()


async def test_rows_come_back_and_a_write_stays_by_itself(engine: AsyncEngine) -> None:
    direct = DirectStatements(engine)
    await direct.fetch("CREATE TABLE kept (id text)")
    await direct.fetch("INSERT INTO kept SELECT unnest($1::text[])", ["a", "b"])
    assert [tuple(row) for row in await direct.fetch("SELECT id FROM kept ORDER BY id")] == [
        ("a",),
        ("b",),
    ]


async def test_the_pool_of_the_engine_stays_free(engine: AsyncEngine) -> None:
    direct = DirectStatements(engine)
    await direct.fetch("SELECT 1")
    async with asyncio.timeout(5), engine.connect() as connection:
        assert (await connection.execute(text("SELECT 2"))).scalar_one() == 2


async def test_many_at_once_share_four_connections(engine: AsyncEngine) -> None:
    direct = DirectStatements(engine)
    rows = await asyncio.gather(
        *(direct.fetch("SELECT pg_backend_pid(), pg_sleep(0.01)") for _ in range(20))
    )
    assert 1 <= len({row[0][0] for row in rows}) <= 4


async def test_a_refused_value_is_told_from_an_outage(engine: AsyncEngine) -> None:
    direct = DirectStatements(engine)
    with pytest.raises(DBAPIError) as refused:
        await direct.fetch("SELECT $1::text", "a\0b")
    assert refuses_values(refused.value)
    with pytest.raises(DBAPIError) as missing:
        await direct.fetch("SELECT * FROM not_there")
    assert not refuses_values(missing.value)


async def test_a_connection_that_was_cut_is_replaced_after_one_failure_at_most(
    engine: AsyncEngine,
) -> None:
    direct = DirectStatements(engine)

    async def backend() -> int:
        return int((await direct.fetch("SELECT pg_backend_pid()"))[0][0])

    victim = await backend()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": victim})
    # Whether it has heard of its end yet is a matter of moments.
    with suppress(DBAPIError, OSError):
        assert await backend() != victim
    assert await backend() != victim


async def test_a_cancelled_statement_leaves_nothing_behind(engine: AsyncEngine) -> None:
    direct = DirectStatements(engine)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await direct.fetch("SELECT pg_sleep(60)")
    assert (await direct.fetch("SELECT 1"))[0][0] == 1


async def test_the_connections_end_with_the_engine(engine: AsyncEngine, database_url: str) -> None:
    direct = DirectStatements(engine)
    await direct.fetch("SELECT 1")
    await engine.dispose()
    watcher = create_engine(database_url, pool_size=1, name="watcher")
    async with asyncio.timeout(10), watcher.connect() as connection:
        while (await connection.execute(text(_OTHERS))).all():
            await connection.commit()
    await watcher.dispose()
