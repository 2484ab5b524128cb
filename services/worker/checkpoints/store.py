"""Checkpoints on PostgreSQL: one row per response, which only its present attempt may write."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, DateTime, Integer, LargeBinary, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.worker.checkpoints.state import Row
from services.worker.errors import LeaseLostError
from services.worker.leases.store import METADATA

CHECKPOINTS = Table(
    "checkpoints",
    METADATA,
    Column("response_id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False),
    Column("state", LargeBinary, comment="JSON; null until the first boundary"),
)

# The lease decides who may write; the attempt in the row keeps one out that lost its lease while
# its statement was under way.
_SAVE = text("""
    INSERT INTO worker.checkpoints AS kept (response_id, attempt, written_at, state)
    SELECT mine.id, mine.attempt, now(), mine.state
    FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[]), CAST(:states AS bytea[]))
        AS mine(id, attempt, state)
    JOIN worker.leases AS held ON held.response_id = mine.id
        AND held.attempt = mine.attempt AND held.state = 'running'
    ORDER BY mine.id
    ON CONFLICT (response_id) DO UPDATE SET
        attempt = excluded.attempt, written_at = excluded.written_at, state = excluded.state
    WHERE kept.attempt <= excluded.attempt
    RETURNING response_id
""")
_TAKE_OVER = text("""
    INSERT INTO worker.checkpoints AS kept (response_id, attempt, written_at)
    SELECT held.response_id, held.attempt, now() FROM worker.leases AS held
    WHERE held.response_id = :response_id AND held.attempt = :attempt AND held.state = 'running'
    ON CONFLICT (response_id) DO UPDATE SET attempt = excluded.attempt
    WHERE kept.attempt <= excluded.attempt
    RETURNING state
""")


class CheckpointStore:
    """Each method is one statement, a transaction by itself. `LeaseStore.finish` deletes rows."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def save(self, rows: Sequence[Row]) -> set[str]:
        """Write checkpoints of different responses; return the ids of those that were ours."""
        async with self._engine.connect() as connection:
            kept = await connection.execute(
                _SAVE,
                {
                    "ids": [row.response_id for row in rows],
                    "attempts": [row.attempt for row in rows],
                    "states": [row.state for row in rows],
                },
            )
            return set(kept.scalars())

    async def take_over(self, response_id: str, attempt: int) -> bytes | None:
        """Make the row this attempt's and return what an earlier one left, None for nothing.

        From then on earlier attempts can't write. Raises `LeaseLostError`.
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(
                _TAKE_OVER, {"response_id": response_id, "attempt": attempt}
            )
            row = found.one_or_none()
        if row is None:
            raise LeaseLostError(response_id)
        state: bytes | None = row.state
        return state
