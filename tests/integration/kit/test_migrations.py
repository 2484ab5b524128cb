"""Every service's schema goes up, down and up again on a real PostgreSQL."""

from __future__ import annotations

import asyncio

from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine
from services.kit.migrate import migrate, migrate_all, services_with_migrations


async def tables(engine: AsyncEngine, schema: str) -> set[str]:
    async with engine.connect() as connection:
        return set(
            await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema=schema))
        )


async def test_all_schemas_go_up_and_down_and_up_again(database_url: str) -> None:
    services = services_with_migrations()
    assert {"intake", "worker", "costs", "artifacts", "mcp_broker"} <= set(services)
    engine = create_engine(database_url, pool_size=1, name="test")
    await migrate_all(database_url, services)
    up = {service: await tables(engine, service) for service in services}
    assert all(len(found) > 1 for found in up.values())
    await migrate_all(database_url, services, target="base")
    for service in services:
        assert await tables(engine, service) == {"alembic_version"}
    await migrate_all(database_url, services)
    assert {service: await tables(engine, service) for service in services} == up
    await engine.dispose()


async def test_replicas_that_migrate_at_once_do_it_once(database_url: str) -> None:
    engines = [create_engine(database_url, pool_size=1, name=f"test-{n}") for n in range(3)]
    await asyncio.gather(*(migrate(engine, service="worker") for engine in engines))
    await asyncio.gather(*(migrate(engine, service="worker") for engine in engines))
    async with engines[0].connect() as connection:
        versions = await connection.execute(text("SELECT version_num FROM worker.alembic_version"))
        assert len(versions.all()) == 1
    for engine in engines:
        await engine.dispose()
