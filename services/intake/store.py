"""The projection of responses in PostgreSQL: idempotent upserts in batches, and the reads on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Integer, Table, Text, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import metadata

METADATA = metadata("intake")

RESPONSES = Table(
    "responses",
    METADATA,
    Column("response_id", Text, primary_key=True),
    Column("project", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("user", Text),
    Column("chat", Text),
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("background", Boolean, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("events_partition", Integer, nullable=False),
    Column("previous_response_id", Text),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("last_sequence_number", Integer),
    Column("request", Text, comment="the body as the client sent it, JSON"),
    Column("response", Text, comment="the finished Response object, JSON"),
    Column("deleted_at", DateTime(timezone=True)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRow:
    """What a command tells about a response."""

    response_id: str
    project: str
    key_id: str
    user: str | None
    chat: str | None
    model: str
    background: bool
    stream: bool
    events_partition: int
    previous_response_id: str | None
    accepted_at: datetime
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRow:
    """What the terminal fact tells about a response, enough to make the row when it comes first."""

    response_id: str
    project: str
    key_id: str
    user: str | None
    chat: str | None
    model: str
    events_partition: int
    accepted_at: datetime
    finished_at: datetime
    status: str
    last_sequence_number: int | None
    response: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as the projection has it; `response` is None until it is finished."""

    response_id: str
    project: str
    status: str
    background: bool
    stream: bool
    events_partition: int
    previous_response_id: str | None
    last_sequence_number: int | None
    request: str | None
    response: str | None


_READ = (
    RESPONSES.c.response_id,
    RESPONSES.c.project,
    RESPONSES.c.status,
    RESPONSES.c.background,
    RESPONSES.c.stream,
    RESPONSES.c.events_partition,
    RESPONSES.c.previous_response_id,
    RESPONSES.c.last_sequence_number,
    RESPONSES.c.request,
    RESPONSES.c.response,
)
_CHAIN = text("""
    WITH RECURSIVE chain AS (
        SELECT r.*, 1 AS depth FROM intake.responses r
        WHERE r.response_id = :response_id AND r.project = :project AND r.deleted_at IS NULL
        UNION ALL
        SELECT r.*, chain.depth + 1 FROM intake.responses r
        JOIN chain ON r.response_id = chain.previous_response_id
        WHERE r.project = :project AND chain.depth <= :most
    )
    SELECT response_id, project, status, background, stream, events_partition,
           previous_response_id, last_sequence_number, request, response
    FROM chain ORDER BY depth DESC
""")
_STARTED = text("""
    UPDATE intake.responses SET status = 'in_progress'
    WHERE response_id = ANY(:ids) AND status = 'queued'
""")
_DELETED = text("""
    INSERT INTO intake.responses
        (response_id, project, key_id, model, status, background, stream, events_partition,
         accepted_at, deleted_at)
    SELECT id, project, key_id, '', 'deleted', false, false, 0, now(), now()
    FROM unnest(CAST(:ids AS text[]), CAST(:projects AS text[]), CAST(:keys AS text[]))
        AS gone(id, project, key_id)
    ON CONFLICT (response_id) DO UPDATE SET
        deleted_at = coalesce(responses.deleted_at, now()), request = NULL, response = NULL
""")


class ResponseStore:
    """The projection. Writes may come in any order and any number of times."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def accepted(self, rows: Sequence[AcceptedRow]) -> None:
        """Add accepted responses; a row that its terminal fact made already is completed."""
        values = [
            {
                **_fields(row),
                "status": "queued" if row.background else "in_progress",
            }
            for row in {row.response_id: row for row in rows}.values()
        ]
        statement = insert(RESPONSES).values(values)
        late = ("background", "stream", "previous_response_id", "request", "model")
        statement = statement.on_conflict_do_update(
            index_elements=["response_id"],
            set_={name: statement.excluded[name] for name in late},
            where=RESPONSES.c.deleted_at.is_(None) & RESPONSES.c.request.is_(None),
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def finished(self, rows: Sequence[FinishedRow]) -> None:
        """Store terminal states; the first one stays whatever comes later."""
        values = [
            {**_fields(row), "background": False, "stream": False}
            for row in {row.response_id: row for row in reversed(rows)}.values()
        ]
        statement = insert(RESPONSES).values(values)
        new = ("status", "finished_at", "last_sequence_number", "response")
        statement = statement.on_conflict_do_update(
            index_elements=["response_id"],
            set_={name: statement.excluded[name] for name in new},
            where=RESPONSES.c.deleted_at.is_(None) & RESPONSES.c.response.is_(None),
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def started(self, response_ids: Sequence[str]) -> None:
        """Note that queued responses are being worked on."""
        async with self._engine.begin() as connection:
            await connection.execute(_STARTED, {"ids": list(response_ids)})

    async def deleted(self, owners: Sequence[tuple[str, str, str]]) -> None:
        """Forget the content of (response id, project, key id) for ever; a mark stays."""
        ids, projects, keys = (list(column) for column in zip(*owners, strict=True))
        async with self._engine.begin() as connection:
            await connection.execute(_DELETED, {"ids": ids, "projects": projects, "keys": keys})

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        """Return a response of the project, None if there is none or it was deleted."""
        query = select(*_READ).where(
            RESPONSES.c.response_id == response_id,
            RESPONSES.c.project == project,
            RESPONSES.c.deleted_at.is_(None),
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else StoredResponse(**row._mapping)

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        """Return a response and those before it, the oldest first, `most` + 1 at the most.

        Empty when the response does not exist; one that was deleted further back is there without
        its content.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                _CHAIN, {"response_id": response_id, "project": project, "most": most}
            )
            return [StoredResponse(**row._mapping) for row in rows]


def _fields(row: AcceptedRow | FinishedRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
