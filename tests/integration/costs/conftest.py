"""A migrated database with the ledger, and a project that no other test has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.principal import Principal
from services.costs.store import LedgerStore
from services.kit.clock import SystemClock
from services.kit.database import create_engine
from services.kit.migrate import migrate


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=4, name="costs-tests")
    await migrate(engine, service="costs")
    yield engine
    await engine.dispose()


@pytest.fixture
def ledger(engine: AsyncEngine) -> LedgerStore:
    return LedgerStore(engine, SystemClock())


@pytest.fixture
def owner() -> Principal:
    return Principal(project=f"proj_{uuid4().hex}", key_id="key_a", user="ada", chat="chat_1")
