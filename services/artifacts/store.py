"""The records in PostgreSQL: artifacts, their blobs, refused files, marks of deleted responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.principal import Principal
from services.artifacts.domain import Artifact, Query, Refused
from services.artifacts.errors import BadParameterError
from services.kit.database import metadata

TABLES = metadata("artifacts")
TIME = sa.TIMESTAMP(timezone=True)

RESPONSES = sa.Table(
    "responses",
    TABLES,
    sa.Column("response_id", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("deleted_at", TIME),
)
BLOBS = sa.Table(
    "blobs",
    TABLES,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # False from before the bytes are written until they are, and again before they are removed.
    sa.Column("stored", sa.Boolean, nullable=False),
)
ARTIFACTS = sa.Table(
    "artifacts",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("response_id", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("user", sa.Text),
    sa.Column("chat", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, sa.ForeignKey(BLOBS.c.sha256), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)
REFUSALS = sa.Table(
    "refusals",
    TABLES,
    sa.Column("response_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
_ORDER = (ARTIFACTS.c.created_at, ARTIFACTS.c.response_id, ARTIFACTS.c.position)


class PostgresTransaction:
    """Implements `service.Transaction` on one connection, in PostgreSQL's read-committed mode.

    In it each statement sees what others committed before it began; so what a lock protects is
    read by the statement after the one that took the lock.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def enter(self, response_id: str, attempt: int) -> bool:
        """Lock the response; False when it was deleted or a later attempt is on record."""
        new = insert(RESPONSES).values(response_id=response_id, attempt=attempt)
        statement = new.on_conflict_do_update(
            index_elements=[RESPONSES.c.response_id],
            set_={"attempt": sa.func.greatest(RESPONSES.c.attempt, new.excluded.attempt)},
        ).returning(RESPONSES.c.attempt, RESPONSES.c.deleted_at)
        row = (await self._connection.execute(statement)).one()
        return row.deleted_at is None and row.attempt == attempt

    async def bury(self, response_id: str, at: datetime) -> None:
        """Lock the response and mark it as deleted for good, also when it was never seen."""
        new = insert(RESPONSES).values(response_id=response_id, attempt=0, deleted_at=at)
        first = sa.func.coalesce(RESPONSES.c.deleted_at, new.excluded.deleted_at)
        await self._connection.execute(
            new.on_conflict_do_update(
                index_elements=[RESPONSES.c.response_id], set_={"deleted_at": first}
            )
        )

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

    async def replace(
        self, response_id: str, artifacts: Sequence[Artifact], refusals: Sequence[Refused]
    ) -> list[Artifact]:
        """Make these the records of the response; return the artifacts that are gone by it."""
        of_response = ARTIFACTS.c.response_id == response_id
        rows = (await self._connection.execute(sa.select(ARTIFACTS).where(of_response))).all()
        before = [_to_artifact(row) for row in rows]
        kept = {artifact.id for artifact in artifacts}
        gone = [artifact for artifact in before if artifact.id not in kept]
        # A repetition, which is what usually finds rows, changes no row and writes none.
        changed = [artifact for artifact in artifacts if artifact not in before]
        if gone:
            ids = [artifact.id for artifact in gone]
            await self._connection.execute(sa.delete(ARTIFACTS).where(ARTIFACTS.c.id.in_(ids)))
        if changed:
            await self._upsert(changed)
        await self._replace_refusals(response_id, refusals)
        left = {artifact.sha256 for artifact in before} - {one.sha256 for one in artifacts}
        if left:
            await self._mark_orphans(sorted(left))
        return gone

    async def _upsert(self, artifacts: Sequence[Artifact]) -> None:
        new = insert(ARTIFACTS).values([_to_row(artifact) for artifact in artifacts])
        changes = {
            column.name: new.excluded[column.name]
            for column in ARTIFACTS.columns
            if not column.primary_key
        }
        await self._connection.execute(
            new.on_conflict_do_update(index_elements=[ARTIFACTS.c.id], set_=changes)
        )

    async def _replace_refusals(self, response_id: str, refusals: Sequence[Refused]) -> None:
        await self._connection.execute(
            sa.delete(REFUSALS).where(REFUSALS.c.response_id == response_id)
        )
        if refusals:
            rows = [
                {
                    "response_id": response_id,
                    "position": refusal.position,
                    "item_id": refusal.item_id,
                    "kind": refusal.kind,
                    "reason": refusal.reason,
                    "detail": refusal.detail,
                }
                for refusal in refusals
            ]
            await self._connection.execute(sa.insert(REFUSALS).values(rows))

    async def _mark_orphans(self, hashes: Sequence[str]) -> None:
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

    async def forget_deleted(self, before: datetime) -> None:
        """Drop the marks of responses that were deleted before that time."""
        await self._connection.execute(sa.delete(RESPONSES).where(RESPONSES.c.deleted_at < before))


def _is_referenced() -> sa.Exists:
    return sa.exists().where(ARTIFACTS.c.sha256 == BLOBS.c.sha256)


class PostgresRecords:
    """Implements `service.Records`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresTransaction]:
        """Open a transaction that commits at the end of the body, or is undone by its error."""
        async with self._engine.begin() as connection:
            yield PostgresTransaction(connection)

    async def find(self, artifact: str, *, project: str | None) -> Artifact | None:
        """Return one artifact of a project, or of any when it is None."""
        statement = sa.select(ARTIFACTS).where(ARTIFACTS.c.id == artifact, *_visible(project))
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _to_artifact(row) if row is not None else None

    async def page(self, query: Query) -> list[Artifact]:
        """Return up to `limit` + 1 artifacts; raises `BadParameterError` for an unknown `after`."""
        statement = sa.select(ARTIFACTS).where(*_visible(query.project)).limit(query.limit + 1)
        if query.response_id is not None:
            statement = statement.where(ARTIFACTS.c.response_id == query.response_id)
        if query.kind is not None:
            statement = statement.where(ARTIFACTS.c.kind == query.kind)
        if query.after is not None:
            last = await self.find(query.after, project=query.project)
            if last is None:
                raise BadParameterError("after", f"No artifact found with id '{query.after}'.")
            place = sa.tuple_(last.created_at, last.response_id, last.position)
            here = sa.tuple_(*_ORDER)
            statement = statement.where(here < place if query.order == "desc" else here > place)
        newest_first = query.order == "desc"
        statement = statement.order_by(
            *(column.desc() if newest_first else column.asc() for column in _ORDER)
        )
        async with self._engine.connect() as connection:
            return [_to_artifact(row) for row in await connection.execute(statement)]


def _visible(project: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if project is None else [ARTIFACTS.c.project == project]


def _to_row(artifact: Artifact) -> dict[str, Any]:
    owner = artifact.principal
    row = {column.name: getattr(artifact, column.name, None) for column in ARTIFACTS.columns}
    return row | {
        "project": owner.project,
        "key_id": owner.key_id,
        "user": owner.user,
        "chat": owner.chat,
    }


def _to_artifact(row: sa.Row[Any]) -> Artifact:
    fields = dict(row._mapping)  # noqa: SLF001 - the public name of it, underscore or not
    owner = {name: fields.pop(name) for name in ("project", "key_id", "user", "chat")}
    return Artifact(principal=Principal(**owner), **fields)
