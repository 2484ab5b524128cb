"""The records in PostgreSQL: artifacts, refused files, marks of deleted responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.principal import Principal
from services.artifacts.blob_records import BlobRecords
from services.artifacts.domain import Artifact, Query, Refused
from services.artifacts.errors import BadParameterError
from services.artifacts.tables import ARTIFACTS, REFUSALS, RESPONSES

_ORDER = (ARTIFACTS.c.created_at, ARTIFACTS.c.response_id, ARTIFACTS.c.position)


class PostgresTransaction(BlobRecords):
    """Implements `service.Transaction` on one connection."""

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
            await self.mark_orphans(sorted(left))
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

    async def forget_deleted(self, before: datetime) -> None:
        """Drop the marks of responses that were deleted before that time."""
        await self._connection.execute(sa.delete(RESPONSES).where(RESPONSES.c.deleted_at < before))


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
