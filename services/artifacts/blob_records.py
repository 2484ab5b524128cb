"""The records of blobs, which artifacts and uploaded files share; one transaction at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.artifacts.tables import ARTIFACTS, BLOBS, FILES


class BlobRecords:
    """The blobs as one transaction sees them, in PostgreSQL's read-committed mode.

    In it each statement sees what others committed before it began; so what a lock protects is
    read by the statement after the one that took the lock.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock_blob(self, sha256: str, size_bytes: int) -> bool:
        """Lock the blob's record, made if need be; whether its bytes are known to be stored."""
        new = insert(BLOBS).values(sha256=sha256, size_bytes=size_bytes, stored=False)
        # The update changes nothing: it is there for the lock.
        statement = new.on_conflict_do_update(
            index_elements=[BLOBS.c.sha256], set_={"size_bytes": new.excluded.size_bytes}
        ).returning(BLOBS.c.stored)
        return bool((await self._connection.execute(statement)).scalar_one())

    async def blob_stored(self, sha256: str) -> None:
        """Record that the bytes of a locked blob are durable."""
        await self._connection.execute(
            sa.update(BLOBS).where(BLOBS.c.sha256 == sha256).values(stored=True)
        )

    async def mark_orphans(self, hashes: Sequence[str]) -> None:
        """Let blobs that lost their last owner be swept; their records are locked by this."""
        await self._connection.execute(
            sa.select(BLOBS.c.sha256)
            .where(BLOBS.c.sha256.in_(hashes))
            .order_by(BLOBS.c.sha256)
            .with_for_update()
        )
        await self._connection.execute(
            sa.update(BLOBS)
            .where(BLOBS.c.sha256.in_(hashes), ~_is_referenced())
            .values(stored=False)
        )

    @asynccontextmanager
    async def orphans(self, limit: int) -> AsyncIterator[list[str]]:
        """Lock up to `limit` orphans for the body, which removes their bytes, then forget them."""
        # What another transaction has locked, it is about to store or to sweep itself.
        candidates = (
            sa.select(BLOBS.c.sha256)
            .where(~BLOBS.c.stored, ~_is_referenced())
            .order_by(BLOBS.c.sha256)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        locked = (await self._connection.execute(candidates)).scalars().all()
        unused = sa.select(BLOBS.c.sha256).where(BLOBS.c.sha256.in_(locked), ~_is_referenced())
        found = list((await self._connection.execute(unused)).scalars()) if locked else []
        yield found
        if found:
            await self._connection.execute(sa.delete(BLOBS).where(BLOBS.c.sha256.in_(found)))


def _is_referenced() -> sa.ColumnElement[bool]:
    owners = (sa.exists().where(table.c.sha256 == BLOBS.c.sha256) for table in (ARTIFACTS, FILES))
    return sa.or_(*owners)
