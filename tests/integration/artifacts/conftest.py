"""A migrated database of these tests' own, empty before each test, and the keeper upon it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.responses import ResponseDeletedV1, ResponseFinishedV1
from services.artifacts.domain import Limits
from services.artifacts.outputs import find_files
from services.artifacts.service import Keeper
from services.artifacts.store import PostgresRecords
from services.artifacts.tables import TABLES
from services.kit.blobs.disk import DiskBlobs
from services.kit.database import create_engine
from services.kit.migrate import migrate
from tests.fixtures.databases import empty_database, empty_tables
from tests.integration.artifacts.facts import Announcements

NOW = datetime(2027, 3, 2, tzinfo=UTC)
Apply = Callable[[ResponseFinishedV1 | ResponseDeletedV1], Awaitable[None]]


@pytest.fixture(scope="session")
async def own_database_url(postgres_server: str) -> AsyncIterator[str]:
    """An empty database that is dropped at the end."""
    async with empty_database(postgres_server, prefix="artifacts") as url:
        yield url


@pytest.fixture(scope="session")
async def migrated(own_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(own_database_url, pool_size=10, name="test")
    await migrate(engine, service="artifacts")
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(migrated: AsyncEngine) -> AsyncEngine:
    """The database, with empty tables."""
    await empty_tables(migrated, TABLES)
    return migrated


@pytest.fixture
def records(engine: AsyncEngine) -> PostgresRecords:
    return PostgresRecords(engine)


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path / "blobs")


@pytest.fixture
def announcements() -> Announcements:
    return Announcements()


@pytest.fixture
def keeper(records: PostgresRecords, blobs: DiskBlobs, announcements: Announcements) -> Keeper:
    return Keeper(records, blobs, announcements, remember_deleted=timedelta(days=14))


@pytest.fixture
def apply(keeper: Keeper) -> Apply:
    return giving(keeper)


def giving(keeper: Keeper) -> Apply:
    """Return what gives one fact to the keeper."""

    async def give(fact: ResponseFinishedV1 | ResponseDeletedV1) -> None:
        if isinstance(fact, ResponseDeletedV1):
            await keeper.forget(fact, at=NOW, traceparent=None)
        else:
            results = find_files(fact.response or {}, Limits(max_files=8, max_bytes=2_000_000))
            await keeper.keep(fact, results, traceparent=None)

    return give
