"""Deliveries as a queue: made from events, leased, settled, forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.webhooks.domain.endpoints import (
    KEPT_ATTEMPTS,
    Claim,
    Outcome,
    RetryRule,
    State,
)
from services.webhooks.domain.events import Event, delivery_id
from services.webhooks.service import Interest
from services.webhooks.store.mapping import from_attempt, to_endpoint
from services.webhooks.store.statements import CLAIM, SETTLE, TURNS
from services.webhooks.store.tables import DELIVERIES, ENDPOINTS

_SWEEP_BATCH = 1_000
# Each has a dozen parameters, of which one statement may have 32,767.
_INSERT_ROWS = 1_000
# A clock that is behind that of a worker must not lose the first event of a new endpoint.
_SKEW = timedelta(minutes=1)


class PostgresDeliveries:
    """Implements `service.Inbox` and `dispatcher.Queue`.

    `per_endpoint` bounds what all instances together send to one endpoint at a time; one that
    failed `trip` times in a row gets a single delivery at a time.
    """

    def __init__(self, engine: AsyncEngine, *, per_endpoint: int, trip: int) -> None:
        self._engine = engine
        self._per_endpoint = per_endpoint
        self._trip = trip

    async def interest(self) -> Interest:
        """Return whether anybody wants to know, and of foreground responses too."""
        statement = sa.select(
            sa.func.count(), sa.func.bool_or(ENDPOINTS.c.responses == "all")
        ).where(ENDPOINTS.c.enabled)
        async with self._engine.connect() as connection:
            count, foreground = (await connection.execute(statement)).one()
        return Interest(any=count > 0, foreground=bool(foreground))

    async def accept(self, events: Sequence[Event], *, at: datetime) -> int:
        """Make deliveries for all endpoints that want them; idempotent. Return the new ones."""
        async with self._engine.begin() as connection:
            wanted = sa.select(ENDPOINTS).where(
                ENDPOINTS.c.enabled, ENDPOINTS.c.project.in_({event.project for event in events})
            )
            by_project = defaultdict(list)
            for row in await connection.execute(wanted):
                by_project[row.project].append(row)
            # By their id: a fact may be in a batch twice, which one statement must not see.
            new = {
                values["id"]: values
                for event in events
                for row in by_project[event.project]
                if _wants(row, event)
                for values in [_values(row.id, event, at)]
            }
            if not new:
                return 0
            # Endpoints can be deleted at this very moment: those that are left are held.
            ids = sorted({values["endpoint_id"] for values in new.values()})
            held = (
                sa.select(ENDPOINTS.c.id)
                .where(ENDPOINTS.c.id.in_(ids))
                .order_by(ENDPOINTS.c.id)
                .with_for_update(read=True, key_share=True)
            )
            left = set((await connection.execute(held)).scalars())
            rows = [values for _, values in sorted(new.items()) if values["endpoint_id"] in left]
            return sum([await _insert(connection, part) for part in _parts(rows)])

    async def claim(self, most: int, *, now: datetime, lease: timedelta) -> list[Claim]:
        """Lease up to `most` deliveries, in turn over their endpoints, within their bounds."""
        bounds = {"now": now, "most": most, "trip": self._trip, "each": self._per_endpoint}
        async with self._engine.begin() as connection:
            turns = list((await connection.execute(TURNS, bounds)).scalars())
            if not turns:
                return []
            values = {**bounds, "turns": turns, "lease_until": now + lease}
            rows = (await connection.execute(CLAIM, values)).all()
        return [
            Claim(
                delivery_id=row.delivery_id,
                endpoint=to_endpoint(row),
                event_id=row.event_id,
                event_type=row.event_type,
                response_id=row.response_id,
                occurred_at=row.occurred_at,
                first_due_at=row.first_due_at,
                attempt=row.attempts,
            )
            for row in rows
        ]

    async def record(self, outcomes: Sequence[Outcome], *, rule: RetryRule) -> None:
        """Write down how attempts ended; one whose lease went to another counts if it worked."""
        async with self._engine.begin() as connection:
            # Endpoints before deliveries, as a claim does.
            await self._judge(connection, outcomes, rule)
            settled = [_settled(outcome) for outcome in outcomes]
            await connection.execute(SETTLE, {"outcomes": settled, "kept": KEPT_ATTEMPTS - 1})

    async def _judge(
        self, connection: AsyncConnection, outcomes: Sequence[Outcome], rule: RetryRule
    ) -> None:
        by_endpoint: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            by_endpoint[outcome.claim.endpoint.id].append(outcome)
        changing = [
            endpoint_id
            for endpoint_id, own in by_endpoint.items()
            if any(not one.attempt.succeeded or one.claim.endpoint.failures for one in own)
        ]
        if not changing:
            return
        locked = (
            sa.select(ENDPOINTS)
            .where(ENDPOINTS.c.id.in_(changing))
            .order_by(ENDPOINTS.c.id)
            .with_for_update(key_share=True)
        )
        for row in (await connection.execute(locked)).all():
            own = sorted(by_endpoint[row.id], key=lambda one: one.attempt.at)
            # What was sent to another address says nothing about this one.
            values = _judged(row, [one for one in own if one.claim.endpoint.url == row.url], rule)
            if values:
                await connection.execute(
                    sa.update(ENDPOINTS).where(ENDPOINTS.c.id == row.id).values(**values)
                )

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> None:
        """Give up leases: the deliveries are due at once."""
        if not claims:
            return
        async with self._engine.begin() as connection:
            for claim in sorted(claims, key=lambda one: one.delivery_id):
                await connection.execute(
                    sa.update(DELIVERIES)
                    .where(*_held_by(claim))
                    .values(leased=False, due_at=now, attempts=DELIVERIES.c.attempts - 1)
                )

    async def forget(self, *, now: datetime, keep: timedelta, give_up: timedelta) -> int:
        """Drop some old deliveries and give up those nobody could try; return how many."""
        stale = (
            sa.select(DELIVERIES.c.id)
            .where(
                DELIVERIES.c.state == "pending",
                DELIVERIES.c.first_due_at < now - give_up,
                DELIVERIES.c.due_at < now,
            )
            .limit(_SWEEP_BATCH)
            .with_for_update(skip_locked=True)
        )
        old = (
            sa.select(DELIVERIES.c.id)
            .where(DELIVERIES.c.state != "pending", DELIVERIES.c.finished_at < now - keep)
            .limit(_SWEEP_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self._engine.begin() as connection:
            given_up = await connection.execute(
                sa.update(DELIVERIES)
                .where(DELIVERIES.c.id.in_(stale))
                .values(state="failed", leased=False, finished_at=now)
            )
            dropped = await connection.execute(
                sa.delete(DELIVERIES).where(DELIVERIES.c.id.in_(old))
            )
            return given_up.rowcount + dropped.rowcount


def _wants(row: sa.Row[Any], event: Event) -> bool:
    return (
        event.type in row.event_types
        and (event.background or row.responses == "all")
        and event.occurred_at >= row.created_at - _SKEW
    )


def _parts(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    return (rows[at : at + _INSERT_ROWS] for at in range(0, len(rows), _INSERT_ROWS))


async def _insert(connection: AsyncConnection, rows: list[dict[str, Any]]) -> int:
    statement = (
        insert(DELIVERIES).values(rows).on_conflict_do_nothing(index_elements=[DELIVERIES.c.id])
    )
    return (await connection.execute(statement)).rowcount


def _values(endpoint_id: str, event: Event, at: datetime) -> dict[str, Any]:
    return {
        "id": delivery_id(endpoint_id, event.id),
        "endpoint_id": endpoint_id,
        "event_id": event.id,
        "event_type": event.type,
        "response_id": event.response_id,
        "occurred_at": event.occurred_at,
        "created_at": at,
        "first_due_at": at,
        "state": "pending",
        "due_at": at,
        "leased": False,
        "attempts": 0,
        "last_attempts": [],
    }


def _held_by(claim: Claim) -> list[sa.ColumnElement[bool]]:
    return [
        DELIVERIES.c.id == claim.delivery_id,
        DELIVERIES.c.state == "pending",
        DELIVERIES.c.leased,
        DELIVERIES.c.attempts == claim.attempt,
    ]


def _settled(outcome: Outcome) -> dict[str, Any]:
    claim, attempt = outcome.claim, outcome.attempt
    retry_at = None if attempt.succeeded else outcome.retry_at
    state: State = "delivered" if attempt.succeeded else "pending" if retry_at else "failed"
    return {
        "id": claim.delivery_id,
        "attempt": claim.attempt,
        "state": state,
        "retry_at": retry_at,
        "finished_at": None if state == "pending" else attempt.at,
        "shown": [from_attempt(attempt)],
    }


def _judged(row: sa.Row[Any], own: Sequence[Outcome], rule: RetryRule) -> dict[str, Any]:
    """Return what the outcomes change at an endpoint: its failures, its pause, its being on."""
    failures, paused_until = row.failures, row.paused_until
    for outcome in own:
        if outcome.attempt.succeeded:
            failures, paused_until = 0, None
        else:
            failures += 1
            paused_until = rule.paused_until(failures, outcome.attempt.ended_at)
    values: dict[str, Any] = {}
    if (failures, paused_until) != (row.failures, row.paused_until):
        values = {"failures": failures, "paused_until": paused_until}
    if any(outcome.attempt.endpoint_is_gone for outcome in own) and row.enabled:
        values |= {"enabled": False, "disabled_reason": "the endpoint answered 410 Gone"}
    return values
