"""PostgreSQL through SQLAlchemy and asyncpg: one engine per process, one schema per service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import MetaData, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.kit.codec import dumps

_STATEMENT_TIMEOUT_MS = 30_000
_CONNECT_TIMEOUT_SECONDS = 5
_DATA_EXCEPTION, _INTEGRITY_VIOLATION = "22", "23"
_NAMING = {
    "ix": "%(table_name)s_%(column_0_name)s_idx",
    "uq": "%(table_name)s_%(column_0_name)s_key",
    "pk": "%(table_name)s_pkey",
}


def metadata(schema: str) -> MetaData:
    """Return the metadata for one service's tables, all in the PostgreSQL schema of its name."""
    return MetaData(schema=schema, naming_convention=_NAMING)


def asyncpg_url(database_url: str) -> URL:
    """Turn any `postgresql://` URL, unix sockets included (`?host=/dir`), into SQLAlchemy's."""
    return make_url(database_url).set(drivername="postgresql+asyncpg")


def create_engine(database_url: str, *, pool_size: int, name: str) -> AsyncEngine:
    """Return an engine with a bounded pool; it connects when it is first used."""
    return create_async_engine(
        asyncpg_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=False,
        json_serializer=lambda value: dumps(value).decode(),
        connect_args={
            "timeout": _CONNECT_TIMEOUT_SECONDS,
            "command_timeout": _STATEMENT_TIMEOUT_MS / 1000,
            "server_settings": {"application_name": f"antiphon-{name}", "jit": "off"},
        },
    )


class TimedEngine:
    """Connections of an engine for statements that a client waits for.

    Room in the pool, connecting and all statements of one connection together may take `seconds`,
    without a bound but the engine's own if None. `TimeoutError` comes after that; the connection is
    given up, since nobody knows whether its statement is still run, and the pool makes another.
    """

    def __init__(self, engine: AsyncEngine, *, seconds: float | None) -> None:
        self._engine = engine
        self._seconds = seconds

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection, as the engine's `connect` does."""
        async with asyncio.timeout(self._seconds), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection in a transaction, as the engine's `begin` does."""
        async with asyncio.timeout(self._seconds), self._engine.begin() as connection:
            yield connection


def refuses_values(error: DBAPIError) -> bool:
    """Whether the same statement with the same values will fail for ever, as text with a NUL does.

    Everything else, from a lost connection to a table that is not migrated yet, may heal.
    """
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return state[:2] in (_DATA_EXCEPTION, _INTEGRITY_VIOLATION)


async def ping(engine: AsyncEngine) -> bool:
    """Return True when the database answers; raises what the driver raises when it does not."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return True
