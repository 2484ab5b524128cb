"""The records of files in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.artifacts.blob_records import BlobRecords
from services.artifacts.files.domain import File, FileQuery
from services.artifacts.files.errors import wrong
from services.artifacts.tables import FILES

_ORDER = (FILES.c.created_at, FILES.c.id)


class PostgresFileTransaction(BlobRecords):
    """Implements `service.FileTransaction` on one connection."""

    async def add(self, file: File) -> None:
        """Record a file whose blob is locked and stored."""
        await self._connection.execute(sa.insert(FILES).values(asdict(file)))

    async def remove(self, file_id: str, *, project: str, now: datetime) -> bool:
        """Remove a file that has not expired; a blob that loses its last owner is an orphan."""
        mine = (FILES.c.id == file_id, FILES.c.project == project, _lives(now))
        return bool(await self._remove(sa.delete(FILES).where(*mine)))

    async def remove_expired(self, now: datetime, *, limit: int) -> int:
        """Remove files whose time is over, up to `limit`; return how many."""
        due = (
            sa.select(FILES.c.id)
            .where(FILES.c.expires_at <= now)
            .order_by(FILES.c.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return await self._remove(sa.delete(FILES).where(FILES.c.id.in_(due)))

    async def _remove(self, statement: sa.Delete) -> int:
        hashes = (await self._connection.execute(statement.returning(FILES.c.sha256))).scalars()
        gone = hashes.all()
        if gone:
            await self.mark_orphans(sorted(set(gone)))
        return len(gone)


class PostgresFileRecords:
    """Implements `service.FileRecords`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresFileTransaction]:
        """Open a transaction that commits at the end of the body, or is undone by its error."""
        async with self._engine.begin() as connection:
            yield PostgresFileTransaction(connection)

    async def find(self, ids: Sequence[str], *, project: str, now: datetime) -> list[File]:
        """Return those of the files that the project has, in any order."""
        wanted = sa.select(FILES).where(
            FILES.c.id.in_(ids), FILES.c.project == project, _lives(now)
        )
        async with self._engine.connect() as connection:
            return [_to_file(row) for row in await connection.execute(wanted)]

    async def page(self, query: FileQuery, *, now: datetime) -> list[File]:
        """Return up to `limit` + 1 files; raises `FilesError` for an unknown `after`."""
        statement = sa.select(FILES).where(FILES.c.project == query.project, _lives(now))
        if query.purpose is not None:
            statement = statement.where(FILES.c.purpose == query.purpose)
        if query.after is not None:
            last = await self.find([query.after], project=query.project, now=now)
            if not last:
                raise wrong("after", f"there is no file with the id '{query.after}'.")
            place = sa.tuple_(last[0].created_at, last[0].id)
            here = sa.tuple_(*_ORDER)
            statement = statement.where(here < place if query.order == "desc" else here > place)
        newest_first = query.order == "desc"
        statement = statement.order_by(
            *(column.desc() if newest_first else column.asc() for column in _ORDER)
        ).limit(query.limit + 1)
        async with self._engine.connect() as connection:
            return [_to_file(row) for row in await connection.execute(statement)]


def _lives(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > now)


def _to_file(row: sa.Row[Any]) -> File:
    return File(**row._mapping)  # noqa: SLF001 - the public name of it, underscore or not
