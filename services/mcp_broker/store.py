"""The record of tool calls in PostgreSQL: who runs which, until when, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    delete,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.tools import CallMcpToolV1
from services.kit.codec import dumps
from services.kit.database import metadata
from services.mcp_broker.service import Accepted, Recorded

RUNNING, FINISHED, ANSWERED = "running", "finished", "answered"

calls = Table(
    "calls",
    metadata("mcp_broker"),
    Column("call_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("command", LargeBinary, nullable=False),
    Column("traceparent", Text),
    Column("response_id", Text, nullable=False),
    Column("reply_partition", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_expires_at", DateTime(timezone=True), nullable=False),
    Column("result", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
)
Index("calls_open_idx", calls.c.lease_expires_at, postgresql_where=calls.c.state != ANSWERED)
Index("calls_answered_idx", calls.c.finished_at, postgresql_where=calls.c.state == ANSWERED)

_REDIRECT = text("""
    UPDATE mcp_broker.calls AS c SET reply_partition = asked.reply_partition
    FROM unnest(CAST(:ids AS text[]), CAST(:partitions AS integer[]))
      AS asked(call_id, reply_partition)
    WHERE c.call_id = asked.call_id
    RETURNING c.call_id, c.state, c.command, c.traceparent, c.response_id, c.reply_partition,
      c.result
""")


class PostgresCalls:
    """Call records; leases are measured by the database's clock, one for all replicas.

    `owner` names this process. Every method is one transaction of its own.
    """

    def __init__(self, engine: AsyncEngine, *, owner: str, lease_seconds: float) -> None:
        self._engine = engine
        self._owner = owner
        self._lease = timedelta(seconds=lease_seconds)

    @property
    def _lease_end(self) -> Any:
        return func.clock_timestamp() + literal(self._lease)

    async def claim(self, batch: Sequence[Accepted]) -> list[Recorded]:
        """Record the calls that are new, leased to this process; return the others' records.

        A call that is recorded already answers to the partition that asked last.
        """
        rows = [
            {
                "call_id": accepted.command.call_id,
                "state": RUNNING,
                "command": dumps(accepted.command.model_dump()),
                "traceparent": accepted.traceparent,
                "response_id": accepted.command.response_id,
                "reply_partition": accepted.command.reply_partition,
                "owner": self._owner,
                "lease_expires_at": self._lease_end,
                "created_at": func.clock_timestamp(),
            }
            for accepted in batch
        ]
        partitions = {
            accepted.command.call_id: accepted.command.reply_partition for accepted in batch
        }
        statement = insert(calls).values(rows).on_conflict_do_nothing().returning(calls.c.call_id)
        async with self._engine.begin() as connection:
            new = set((await connection.execute(statement)).scalars())
            seen = {call: place for call, place in partitions.items() if call not in new}
            if not seen:
                return []
            found = await connection.execute(
                _REDIRECT, {"ids": list(seen), "partitions": list(seen.values())}
            )
            return [_recorded(row) for row in found]

    async def take_expired(self, limit: int) -> list[Recorded]:
        """Lease up to `limit` unanswered calls that nobody works on, oldest lease first."""
        expired = (
            select(calls.c.call_id)
            .where(calls.c.state != ANSWERED, calls.c.lease_expires_at < func.clock_timestamp())
            .order_by(calls.c.lease_expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("expired")
        )
        statement = (
            update(calls)
            .where(calls.c.call_id == expired.c.call_id)
            .values(owner=self._owner, lease_expires_at=self._lease_end)
            .returning(calls)
        )
        async with self._engine.begin() as connection:
            return [_recorded(row) for row in await connection.execute(statement)]

    async def renew(self, call_ids: Sequence[str]) -> None:
        """Prolong the leases that this process still has on these calls."""
        await self._update_own(call_ids, {"lease_expires_at": self._lease_end})

    async def finish(self, call_id: str, result: bytes) -> int | None:
        """Record the result; return the partition that waits for it, None when the call is no
        longer this process's. Recording it again is harmless.
        """
        statement = (
            update(calls)
            .where(
                calls.c.call_id == call_id,
                calls.c.owner == self._owner,
                calls.c.state != ANSWERED,
            )
            .values(state=FINISHED, result=result, finished_at=func.clock_timestamp())
            .returning(calls.c.reply_partition)
        )
        async with self._engine.begin() as connection:
            partition: int | None = (await connection.execute(statement)).scalar_one_or_none()
            return partition

    async def mark_answered(self, call_ids: Sequence[str]) -> None:
        """Note that the results of these calls are on the topic."""
        statement = (
            update(calls)
            .where(calls.c.call_id.in_(call_ids), calls.c.state == FINISHED)
            .values(state=ANSWERED)
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def release(self, call_ids: Sequence[str]) -> None:
        """Give back the leases on these calls: whoever looks next may run them."""
        await self._update_own(call_ids, {"lease_expires_at": func.clock_timestamp()})

    async def _update_own(self, call_ids: Sequence[str], values: Mapping[str, Any]) -> None:
        statement = (
            update(calls)
            .where(
                calls.c.call_id.in_(call_ids),
                calls.c.owner == self._owner,
                calls.c.state != ANSWERED,
            )
            .values(values)
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def purge(self, *, older_than_seconds: float, limit: int) -> int:
        """Delete up to `limit` answered calls that finished so long ago; return how many."""
        before = func.clock_timestamp() - literal(timedelta(seconds=older_than_seconds))
        old = (
            select(calls.c.call_id)
            .where(calls.c.state == ANSWERED, calls.c.finished_at < before)
            .limit(limit)
        )
        statement = delete(calls).where(calls.c.call_id.in_(old))
        async with self._engine.begin() as connection:
            return (await connection.execute(statement)).rowcount


def _recorded(row: Row[Any]) -> Recorded:
    command = CallMcpToolV1.model_validate_json(row.command)
    return Recorded(
        call=Accepted(
            command=command.model_copy(update={"reply_partition": row.reply_partition}),
            traceparent=row.traceparent,
        ),
        result=row.result,
    )
