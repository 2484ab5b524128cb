"""Leases on PostgreSQL: who runs which response, until when, and whether it is done."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    SmallInteger,
    Table,
    Text,
    false,
    func,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import metadata
from services.kit.direct import DirectStatements
from services.worker.leases import statements
from services.worker.leases.rules import MOST_HANDOVERS, Claim, CommandPlace, Expired

METADATA = metadata("worker")
_MOST_DOUBLINGS = 6

# The columns as all migrations together leave them, for who reads this: statements are text, and
# the indexes stand in the migrations.
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
    Column("handovers", Integer, nullable=False, server_default="0"),
    Column("resent", Integer, nullable=False, server_default="0"),
    Column("first_claimed_at", DateTime(timezone=True)),
)


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
            statements.CLAIM,
            self._owner,
            self._seconds,
            [command.response_id for command in unique],
            [command.partition for command in unique],
            [command.offset for command in unique],
        )
        return {
            taken: Claim(attempt, cancelled, handovers=handovers, since=since)
            for taken, attempt, cancelled, handovers, since in rows
        }

    async def cancel(self, *response_ids: str) -> None:
        """Mark responses, each once, as cancelled for whoever runs them, now or later. Idempotent.

        They are few hundred at the most: all is one statement.
        """
        async with self._engine.connect() as connection:
            await connection.execute(statements.CANCEL, {"ids": sorted(response_ids)})

    async def renew(self, held: Sequence[tuple[str, int]]) -> dict[str, bool]:
        """Extend the leases of (response id, attempt); return those that are still ours.

        Each id with whether the response was cancelled, before the claim or since.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                statements.RENEW, {**_pairs(held), "seconds": self._seconds}
            )
            return {row.response_id: row.cancelled for row in rows}

    async def finish(
        self, held: Sequence[tuple[str, int]], *, checkpointed: Sequence[str] = ()
    ) -> None:
        """Mark responses as done for ever; those named as `checkpointed` lose their checkpoint."""
        if checkpointed:
            await self._direct.fetch(
                statements.FINISH_WITH_CHECKPOINTS, *_pairs(held).values(), list(checkpointed)
            )
        else:
            await self._direct.fetch(statements.FINISH, *_pairs(held).values())

    async def release(
        self, held: Sequence[tuple[str, int]], *, orderly: bool, again_after_seconds: float
    ) -> list[CommandPlace]:
        """Let go of responses that another worker should take at once.

        Return where the commands stand that the caller must send again for that; a sweeper does it
        after `again_after_seconds` if nobody took them. An `orderly` end is no failed attempt.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                statements.RELEASE,
                {
                    **_pairs(held),
                    "handovers": int(orderly),
                    "most_handovers": MOST_HANDOVERS,
                    "again_after_seconds": again_after_seconds,
                },
            )
            return [
                CommandPlace(row.response_id, row.command_partition, row.command_offset)
                for row in rows
                if row.state == "abandoned"
            ]

    async def abandon_expired(self, *, most: int, again_after_seconds: float) -> list[Expired]:
        """Open up to `most` expired leases for the next claim; return where their commands stand.

        One that nobody claims within `again_after_seconds` is returned again by a later call.
        """
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                statements.ABANDON, {"most": most, "again_after_seconds": again_after_seconds}
            )
            return [
                Expired(
                    CommandPlace(row.response_id, row.command_partition, row.command_offset),
                    row.resent,
                )
                for row in rows
            ]

    async def resent(self, ids: Sequence[str], *, again_after_seconds: float) -> None:
        """Note that commands were sent again; each time the next one is due twice as late."""
        async with self._engine.connect() as connection:
            await connection.execute(
                statements.RESENT,
                {
                    "ids": list(ids),
                    "again_after_seconds": again_after_seconds,
                    "most": _MOST_DOUBLINGS,
                },
            )

    async def end(self, ids: Sequence[str]) -> None:
        """Close abandoned leases for ever: nothing can be done for them any more."""
        async with self._engine.connect() as connection:
            await connection.execute(statements.END, {"ids": list(ids)})

    async def expect(self, commands: Sequence[CommandPlace], *, after_seconds: float) -> None:
        """Let commands be sent again later which this worker can't read. Idempotent.

        What anybody has claimed or finished stays as it is.
        """
        unique = list({command.response_id: command for command in commands}.values())
        async with self._engine.connect() as connection:
            await connection.execute(
                statements.EXPECT,
                {
                    "after_seconds": after_seconds,
                    "ids": [command.response_id for command in unique],
                    "places": [command.partition for command in unique],
                    "offsets": [command.offset for command in unique],
                },
            )

    async def forget(self, *, days: int, most: int) -> int:
        """Delete up to `most` leases older than `days`: finished ones and idle cancel marks.

        What is left of their checkpoints goes with them.
        """
        async with self._engine.connect() as connection:
            forgotten = await connection.execute(statements.FORGET, {"days": days, "most": most})
            return int(forgotten.scalar_one())


def _pairs(held: Sequence[tuple[str, int]]) -> dict[str, list[str] | list[int]]:
    return {
        "ids": [response_id for response_id, _ in held],
        "attempts": [attempt for _, attempt in held],
    }
