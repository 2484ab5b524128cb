"""Single statements on asyncpg itself, for hot paths on which SQLAlchemy costs as much again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

_MOST_CONNECTIONS = 4


class DirectStatements:
    """Runs statements, each a transaction by itself, beside the engine's pool.

    Connections are made as the engine makes them, up to four, stay open, and are closed with the
    engine's `dispose`. Statements have asyncpg's parameters (`$1`), are prepared once for each
    connection, and fail as they would with SQLAlchemy: with `DBAPIError` or `OSError`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._room = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._idle: list[asyncpg.Connection] = []
        event.listen(engine.sync_engine, "engine_disposed", self._close)

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run one statement and return its rows."""
        async with self._room:
            connection = await self._connection()
            try:
                rows = await connection.fetch(statement, *arguments)
            except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise DBAPIError(statement, None, error) from error
            except asyncpg.InternalClientError as error:
                # The server had ended the connection, which is about to notice.
                connection.terminate()
                raise DBAPIError(statement, None, error) from error
            except BaseException:
                # Whether the statement still runs there is not known.
                connection.terminate()
                raise
            finally:
                if not connection.is_closed():
                    self._idle.append(connection)
            return rows

    async def _connection(self) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            pooled = await self._engine.raw_connection()
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise DBAPIError("connect", None, error) from error
        fresh = cast("asyncpg.Connection", pooled.driver_connection)
        pooled.detach()
        return fresh

    def _close(self, _engine: Any) -> None:
        while self._idle:
            self._idle.pop().terminate()
