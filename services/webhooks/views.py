"""Endpoints and deliveries as clients see them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.webhooks.domain.endpoints import Attempt, Delivery, Endpoint


def page(found: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return a list of up to `limit` objects; one more tells that there are more."""
    data = found[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }


def endpoint_object(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint with the fields of the OpenAI API, then ours; never its secrets."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": _seconds(endpoint.created_at),
        "updated_at": _seconds(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "signing_secret_hint": endpoint.secret_hint,
        "project": endpoint.project,
        "responses": endpoint.responses,
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason,
        "failures_in_a_row": endpoint.failures,
        "paused_until": _seconds(endpoint.paused_until),
    }


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery with its last attempts, the latest first."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "webhook_endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "response_id": delivery.response_id,
        "status": delivery.state,
        "attempts": delivery.attempts,
        "last_attempts": [_attempt(one) for one in reversed(delivery.last_attempts)],
        "next_attempt_at": _seconds(delivery.due_at),
        "created_at": _seconds(delivery.created_at),
        "finished_at": _seconds(delivery.finished_at),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": _seconds(attempt.at),
        "status_code": attempt.status_code,
        "error": attempt.error,
        "latency_ms": attempt.latency_ms,
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
