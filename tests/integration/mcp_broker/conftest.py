"""What the tests of the MCP broker share: a database of their own, and its records."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import create_engine
from services.kit.migrate import migrate


@pytest.fixture
def python() -> str:
    """The interpreter that has the MCP SDK."""
    return sys.executable


async def _execute(database_url: str, statement: str) -> None:
    engine = create_engine(database_url, pool_size=1, name="tests")
    try:
        async with engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await autocommit.execute(text(statement))
    finally:
        await engine.dispose()


@pytest.fixture
async def own_database_url(database_url: str) -> AsyncIterator[str]:
    """A fresh database for one test, with the broker's schema."""
    name = f"test_{uuid4().hex[:12]}"
    await _execute(database_url, f"CREATE DATABASE {name}")
    url = make_url(database_url).set(database=name).render_as_string(hide_password=False)
    engine = create_engine(url, pool_size=1, name="tests")
    try:
        await migrate(engine, service="mcp_broker")
    finally:
        await engine.dispose()
    yield url
    await _execute(database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(own_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(own_database_url, pool_size=8, name="tests")
    yield engine
    await engine.dispose()
