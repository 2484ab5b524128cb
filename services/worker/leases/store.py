"""The worker's one table: who runs which response, until when, and whether it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    SmallInteger,
    Table,
    Text,
    bindparam,
    false,
    func,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import metadata
from services.kit.direct import DirectStatements

METADATA = metadata("worker")

LEASES = Table(
    "leases",
    METADATA,
    Column("response_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("state", Text, nullable=False, comment="parked, running, abandoned or finished"),
    Column("owner", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("command_partition", Integer, comment="null until the command was read"),
    Column("command_offset", BigInteger),
    Column("cancelled", Boolean, nullable=False, server_default=false()),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Of background responses alone, see `queue`: what decides their turn while they are parked.
    Column("key_id", Text),
    Column("priority", SmallInteger),
    Column("queued_at", DateTime(timezone=True)),
    Column("head", Text, comment="the command without request and history, JSON"),
)


@dataclass(frozen=True, slots=True)
class CommandPlace:
    """Where the command of a response stands on `responses.commands`."""

    response_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A response this worker shall run, or end at once when it was `cancelled` meanwhile.

    One whose command is `lost` can only be ended as failed. `traceparent` is the command's.
    """

    attempt: int
    cancelled: bool
    lost: bool = False
    traceparent: str | None = None


# All times are the database's: workers' clocks may differ or jump.
# The two statements of every batch go to asyncpg directly, the others are rare.
_CLAIM = """
    INSERT INTO worker.leases AS held
        (response_id, attempt, state, owner, expires_at, command_partition, command_offset)
    SELECT id, 1, 'running', $1, now() + make_interval(secs => $2), place, at
    FROM unnest($3::text[], $4::int[], $5::bigint[]) AS command(id, place, at)
    ORDER BY id
    ON CONFLICT (response_id) DO UPDATE SET
        attempt = held.attempt + 1, state = 'running', owner = excluded.owner,
        expires_at = excluded.expires_at, command_partition = excluded.command_partition,
        command_offset = excluded.command_offset
    WHERE held.state = 'abandoned' OR (held.state = 'running' AND held.expires_at < now())
    RETURNING response_id, attempt, cancelled
"""
_FINISH = """
    UPDATE worker.leases AS held SET state = 'finished'
    FROM unnest($1::text[], $2::int[]) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt
"""
_CANCEL = text("""
    INSERT INTO worker.leases AS held (response_id, attempt, state, owner, expires_at, cancelled)
    VALUES (:response_id, 0, 'abandoned', '', 'infinity', true)
    ON CONFLICT (response_id) DO UPDATE SET cancelled = true WHERE held.state <> 'finished'
""")
_RENEW = text("""
    UPDATE worker.leases AS held SET expires_at = now() + make_interval(secs => :seconds)
    FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[])) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt AND held.state = 'running'
    RETURNING held.response_id, held.cancelled
""")
_RELEASE = text("""
    UPDATE worker.leases AS held SET expires_at = now()
    FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[])) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt AND held.state = 'running'
""")
_ABANDON = text("""
    UPDATE worker.leases AS held
    SET state = 'abandoned', expires_at = now() + make_interval(secs => :again_after_seconds)
    FROM (
        SELECT response_id FROM worker.leases
        WHERE state <> 'finished' AND expires_at < now()
            AND (priority IS NULL OR state = 'abandoned')
        ORDER BY expires_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) AS expired
    WHERE held.response_id = expired.response_id
    RETURNING held.response_id, held.command_partition, held.command_offset
""")
_FORGET = text("""
    DELETE FROM worker.leases WHERE response_id IN (
        SELECT response_id FROM worker.leases
        WHERE (state = 'finished' OR (state = 'abandoned' AND expires_at = 'infinity'))
            AND created_at < now() - make_interval(days => :days)
        LIMIT :most
    )
""").bindparams(bindparam("days"), bindparam("most"))


class LeaseStore:
    """Leases on PostgreSQL; each method is one statement, a transaction by itself."""

    def __init__(self, engine: AsyncEngine, *, owner: str, seconds: float) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._direct = DirectStatements(engine)
        self._owner = owner
        self._seconds = seconds

    async def claim(self, commands: Sequence[CommandPlace]) -> dict[str, Claim]:
        """Take the responses nobody runs; return the claim to each one taken.

        What another worker holds, and what is finished, is not in the answer.
        """
        unique = list({command.response_id: command for command in commands}.values())
        rows = await self._direct.fetch(
            _CLAIM,
            self._owner,
            self._seconds,
            [command.response_id for command in unique],
            [command.partition for command in unique],
            [command.offset for command in unique],
        )
        return {taken: Claim(attempt, cancelled) for taken, attempt, cancelled in rows}

    async def cancel(self, response_id: str) -> None:
        """Mark a response as cancelled for whoever runs it, now or later. Idempotent."""
        async with self._engine.connect() as connection:
            await connection.execute(_CANCEL, {"response_id": response_id})

    async def renew(self, held: Sequence[tuple[str, int]]) -> dict[str, bool]:
        """Extend the leases of (response id, attempt); return those that are still ours.

        Each id with whether the response was cancelled, before the claim or since.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(_RENEW, {**_pairs(held), "seconds": self._seconds})
            return {row.response_id: row.cancelled for row in rows}

    async def finish(self, held: Sequence[tuple[str, int]]) -> None:
        """Mark responses as done for ever."""
        await self._direct.fetch(_FINISH, *_pairs(held).values())

    async def release(self, held: Sequence[tuple[str, int]]) -> None:
        """Let go of responses that another worker should take at once."""
        async with self._engine.connect() as connection:
            await connection.execute(_RELEASE, _pairs(held))

    async def abandon_expired(self, *, most: int, again_after_seconds: float) -> list[CommandPlace]:
        """Open up to `most` expired leases for the next claim; return where their commands stand.

        One that nobody claims within `again_after_seconds` is returned again by a later call.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                _ABANDON, {"most": most, "again_after_seconds": again_after_seconds}
            )
            return [
                CommandPlace(row.response_id, row.command_partition, row.command_offset)
                for row in rows
            ]

    async def forget(self, *, days: int, most: int) -> int:
        """Delete up to `most` leases older than `days`: finished ones and idle cancel marks."""
        async with self._engine.connect() as connection:
            return (await connection.execute(_FORGET, {"days": days, "most": most})).rowcount


def _pairs(held: Sequence[tuple[str, int]]) -> dict[str, list[str] | list[int]]:
    return {
        "ids": [response_id for response_id, _ in held],
        "attempts": [attempt for _, attempt in held],
    }
