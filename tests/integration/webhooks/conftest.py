"""A migrated database of these tests' own, empty before each test, and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine
from services.kit.migrate import migrate
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from services.webhooks.store.tables import TABLES
from tests.fixtures.databases import empty_database, empty_tables
from tests.integration.webhooks.parts import PER_ENDPOINT, RULE
from tests.webhook_receiver import Receiver, receiving


@pytest.fixture(scope="session")
async def own_database_url(postgres_server: str) -> AsyncIterator[str]:
    """An empty database that is dropped at the end."""
    async with empty_database(postgres_server, prefix="webhooks") as url:
        yield url


@pytest.fixture(scope="session")
async def migrated(own_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(own_database_url, pool_size=10, name="test")
    await migrate(engine, service="webhooks")
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(migrated: AsyncEngine) -> AsyncEngine:
    """The database, with empty tables."""
    await empty_tables(migrated, TABLES)
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
