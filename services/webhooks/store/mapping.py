"""Rows to what the domain speaks of."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.webhooks.domain.endpoints import Attempt, Delivery, Endpoint
from services.webhooks.store.tables import ENDPOINTS

_OF_ENDPOINT = [column.name for column in ENDPOINTS.columns if column.name != "claimed_at"]


def to_endpoint(row: sa.Row[Any]) -> Endpoint:
    """Return the endpoint of a row that has the columns of its table."""
    fields = {name: getattr(row, name) for name in _OF_ENDPOINT}
    return Endpoint(**{**fields, "event_types": tuple(fields["event_types"])})


def from_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint's columns."""
    return {**asdict(endpoint), "event_types": list(endpoint.event_types)}


def to_delivery(row: sa.Row[Any]) -> Delivery:
    """Return the delivery of a row that has the columns of its table."""
    return Delivery(
        id=row.id,
        endpoint_id=row.endpoint_id,
        event_id=row.event_id,
        event_type=row.event_type,
        response_id=row.response_id,
        state=row.state,
        attempts=row.attempts,
        last_attempts=[_to_attempt(one) for one in row.last_attempts],
        due_at=row.due_at if row.state == "pending" else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def from_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as it stands in `last_attempts`."""
    return {**asdict(attempt), "at": attempt.at.isoformat()}


def _to_attempt(fields: dict[str, Any]) -> Attempt:
    return Attempt(**{**fields, "at": datetime.fromisoformat(fields["at"])})
