"""The projection of responses in PostgreSQL: idempotent upserts in batches, and the reads on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Integer, Table, Text, case, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.domain import AcceptedRow, FinishedRow, StoredResponse
from services.kit.database import TimedEngine, metadata
from services.kit.direct import DirectStatements

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


_READ = (
    RESPONSES.c.response_id,
    RESPONSES.c.project,
    RESPONSES.c.status,
    RESPONSES.c.background,
    RESPONSES.c.stream,
    RESPONSES.c.events_partition,
    RESPONSES.c.previous_response_id,
    RESPONSES.c.last_sequence_number,
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
# One text per statement, rows as arrays: prepared once, whatever the size of the batch. The arrays
# come in the order of the fields of `AcceptedRow` and `FinishedRow`.
_ACCEPTED = """
    INSERT INTO intake.responses AS known
        (response_id, project, key_id, "user", chat, model, background, stream, events_partition,
         previous_response_id, accepted_at, request, status)
    SELECT row.*, CASE WHEN row.background THEN 'queued' ELSE 'in_progress' END
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
        $8::boolean[], $9::int[], $10::text[], $11::timestamptz[], $12::text[]
    ) AS row(response_id, project, key_id, "user", chat, model, background, stream,
             events_partition, previous_response_id, accepted_at, request)
    ON CONFLICT (response_id) DO UPDATE SET
        background = excluded.background, stream = excluded.stream, model = excluded.model,
        previous_response_id = excluded.previous_response_id, request = excluded.request,
        events_partition = excluded.events_partition, accepted_at = excluded.accepted_at,
        "user" = excluded."user", chat = excluded.chat
    WHERE known.deleted_at IS NULL AND known.request IS NULL
"""
_FINISHED = """
    INSERT INTO intake.responses AS known
        (response_id, project, key_id, "user", chat, model, events_partition, accepted_at,
         finished_at, status, last_sequence_number, response, background, stream)
    SELECT row.*, false, row.last_sequence_number IS NOT NULL
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[],
        $8::timestamptz[], $9::timestamptz[], $10::text[], $11::int[], $12::text[]
    ) AS row(response_id, project, key_id, "user", chat, model, events_partition, accepted_at,
             finished_at, status, last_sequence_number, response)
    ON CONFLICT (response_id) DO UPDATE SET
        status = excluded.status, finished_at = excluded.finished_at,
        last_sequence_number = excluded.last_sequence_number, response = excluded.response
    WHERE known.deleted_at IS NULL AND known.response IS NULL
        AND (known.status <> 'cancelled' OR excluded.status = 'cancelled')
"""
_CANCELLED = text("""
    UPDATE intake.responses SET status = 'cancelled'
    WHERE response_id = :response_id AND response IS NULL AND deleted_at IS NULL
""")
# A start may be read before the command: its row waits for the rest, and nobody reads it till then.
_STARTED = text("""
    INSERT INTO intake.responses
        (response_id, project, key_id, model, status, background, stream, events_partition,
         accepted_at)
    SELECT id, project, key_id, '', 'in_progress', true, false, 0, now()
    FROM unnest(CAST(:ids AS text[]), CAST(:projects AS text[]), CAST(:keys AS text[]))
        AS begun(id, project, key_id)
    ON CONFLICT (response_id) DO UPDATE SET status = 'in_progress'
    WHERE responses.status = 'queued'
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
_ANY_DELETED = text("""
    SELECT EXISTS (
        SELECT 1 FROM intake.responses
        WHERE response_id = ANY(CAST(:ids AS text[])) AND deleted_at IS NOT NULL
    )
""")


class ResponseStore:
    """The projection. Writes may come in any order and any number of times.

    What clients wait for raises `TimeoutError` after `answer_seconds`; what is projected does not.
    """

    def __init__(self, engine: AsyncEngine, *, answer_seconds: float | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._timed = TimedEngine(self._engine, seconds=answer_seconds)
        self._direct = DirectStatements(engine)

    async def accepted(self, rows: Sequence[AcceptedRow]) -> None:
        """Add accepted responses; a row that its terminal fact made already is completed."""
        unique = {row.response_id: row for row in rows}
        await self._direct.fetch(_ACCEPTED, *_columns(list(unique.values())))

    async def finished(self, rows: Sequence[FinishedRow]) -> None:
        """Store terminal states; the first one, or a cancellation, stays whatever comes later."""
        unique = {row.response_id: row for row in reversed(rows)}
        await self._direct.fetch(_FINISHED, *_columns(list(unique.values())))

    async def started(self, owners: Sequence[tuple[str, str, str]]) -> None:
        """Note that (response id, project, key id) are being worked on."""
        async with self._engine.connect() as connection:
            await connection.execute(_STARTED, _owners(owners))

    async def cancelled(self, response_id: str) -> None:
        """Let an unfinished response be cancelled, whatever its worker still states. Idempotent."""
        async with self._timed.connect() as connection:
            await connection.execute(_CANCELLED, {"response_id": response_id})

    async def deleted(self, owners: Sequence[tuple[str, str, str]]) -> None:
        """Forget the content of (response id, project, key id) for ever; a mark stays."""
        async with self._engine.connect() as connection:
            await connection.execute(_DELETED, _owners(owners))

    async def any_deleted(self, response_ids: Sequence[str]) -> bool:
        """Whether one of these responses was deleted."""
        async with self._timed.connect() as connection:
            found = await connection.execute(_ANY_DELETED, {"ids": list(response_ids)})
            return bool(found.scalar_one())

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        """Return a response of the project, or a mark without content; None if none was.

        The mark says that there is nothing to wait for: it was deleted, or is of another project.
        """
        own = RESPONSES.c.project == project
        query = select(
            *_READ,
            case((own, RESPONSES.c.request)),
            case((own, RESPONSES.c.response)),
            RESPONSES.c.deleted_at.is_not(None) | ~own,
        ).where(
            RESPONSES.c.response_id == response_id,
            RESPONSES.c.request.is_not(None)
            | RESPONSES.c.response.is_not(None)
            | RESPONSES.c.deleted_at.is_not(None),
        )
        async with self._timed.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else StoredResponse(*tuple(row))

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        """Return a response and those before it, the oldest first, `most` + 1 at the most.

        Empty when the response does not exist; one that was deleted further back is there without
        its content.
        """
        async with self._timed.connect() as connection:
            rows = await connection.execute(
                _CHAIN, {"response_id": response_id, "project": project, "most": most}
            )
            return [StoredResponse(*tuple(row)) for row in rows]


def _columns(rows: Sequence[AcceptedRow] | Sequence[FinishedRow]) -> list[list[Any]]:
    return [[getattr(row, name) for row in rows] for name in rows[0].__slots__]


def _owners(owners: Sequence[tuple[str, str, str]]) -> dict[str, list[str]]:
    unique = {owner[0]: owner for owner in owners}.values()
    ids, projects, keys = (list(column) for column in zip(*unique, strict=True))
    return {"ids": ids, "projects": projects, "keys": keys}
