"""What the services' tables hold after a run."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.chaos.ledger.evidence import Evidence, Lease, Row
from tests.chaos.ledger.topics import line_of

_LEASES = "SELECT response_id, state, attempt, owner FROM worker.leases WHERE state <> 'finished'"
_TOOL_CALLS = "SELECT call_id FROM mcp_broker.calls WHERE state <> 'answered'"
_UNFINISHED = """
    SELECT response_id FROM intake.responses
    WHERE deleted_at IS NULL
        AND status NOT IN ('completed', 'failed', 'incomplete', 'cancelled', 'deleted')
"""
_ROWS = "SELECT response_id, status, response, deleted_at IS NOT NULL FROM intake.responses"
_LINES = """
    SELECT line_id, response_id, unit, quantity, unit_price_usd, cost_usd, unpriced_reason, model,
        tool, estimated
    FROM costs.ledger
"""
_ARTIFACTS = "SELECT id, response_id, sha256, size_bytes FROM artifacts.artifacts"


class Tables:
    """Reads all schemas; every method is one or two statements."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def rows(self, statement: str) -> list[Any]:
        """Return the rows of a statement."""
        async with self._engine.connect() as connection:
            return list(await connection.execute(text(statement)))

    async def open_work(self) -> list[str]:
        """Return, in words, what is not done yet."""
        leases = await self.rows(_LEASES)
        calls = await self.rows(_TOOL_CALLS)
        unfinished = await self.rows(_UNFINISHED)
        found = {
            "leases": [f"{row.response_id} ({row.state})" for row in leases],
            "tool calls": [row.call_id for row in calls],
            "responses in the projection": [row.response_id for row in unfinished],
        }
        return [f"{len(ids)} {what} open: {ids[:3]}" for what, ids in found.items() if ids]

    async def gather(self, evidence: Evidence) -> list[Any]:
        """Fill in what tables tell; return the artifacts (id, response id, sha256, size)."""
        for row in await self.rows(_ROWS):
            evidence.rows[row[0]] = Row(*row)
        evidence.lines_kept = [line_of(row._mapping) for row in await self.rows(_LINES)]
        evidence.leases = [Lease(*row) for row in await self.rows(_LEASES)]
        evidence.open_tool_calls = [row[0] for row in await self.rows(_TOOL_CALLS)]
        [[checkpoints]] = await self.rows("SELECT to_regclass('worker.checkpoints') IS NOT NULL")
        if checkpoints:
            found = await self.rows("SELECT DISTINCT response_id FROM worker.checkpoints")
            evidence.checkpoints = [row[0] for row in found]
        return await self.rows(_ARTIFACTS)
