"""A migrated database of these tests' own, empty before each test, and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.kit.database import asyncpg_url, create_engine
from services.kit.migrate import migrate
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from services.webhooks.store.tables import TABLES
from tests.integration.webhooks.parts import PER_ENDPOINT, RULE
from tests.webhook_receiver import Receiver, receiving


@pytest.fixture(scope="session")
async def own_database_url(postgres_server: str) -> AsyncIterator[str]:
    """An empty database that is dropped at the end."""
    name = f"webhooks_{uuid4().hex}"
    server = create_async_engine(asyncpg_url(postgres_server), isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    async with server.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await server.dispose()


@pytest.fixture(scope="session")
async def migrated(own_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(own_database_url, pool_size=10, name="test")
    await migrate(engine, service="webhooks")
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(migrated: AsyncEngine) -> AsyncEngine:
    """The database, with empty tables."""
    tables = ", ".join(str(table) for table in TABLES.sorted_tables)
    async with migrated.begin() as connection:
        await connection.execute(text(f"TRUNCATE {tables}"))
    return migrated


@pytest.fixture
def endpoints(engine: AsyncEngine) -> PostgresEndpoints:
    return PostgresEndpoints(engine)


@pytest.fixture
def queue(engine: AsyncEngine) -> PostgresDeliveries:
    return PostgresDeliveries(engine, per_endpoint=PER_ENDPOINT, trip=RULE.trip)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started
