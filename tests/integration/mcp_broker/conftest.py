"""What the tests of the MCP broker share: its schema, and the interpreter that has the SDK."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine
from services.kit.migrate import migrate_all


@pytest.fixture
def python() -> str:
    """The interpreter that has the MCP SDK."""
    return sys.executable


@pytest.fixture
async def migrated_url(database_url: str) -> str:
    """The database of this test, with the broker's schema."""
    await migrate_all(database_url, ["mcp_broker"])
    return database_url


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(migrated_url, pool_size=8, name="tests")
    yield engine
    await engine.dispose()
