"""Endpoints and claims, as the tests need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.webhooks.domain.endpoints import Claim, Endpoint
from services.webhooks.domain.events import EVENT_TYPES

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def endpoint(**changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "id": "we_1",
        "project": "research",
        "name": "hook",
        "url": "https://hooks.example/1",
        "event_types": EVENT_TYPES,
        "responses": "background",
        "enabled": True,
        "disabled_reason": None,
        "secret": "",
        "secret_hint": "",
        "old_secret": None,
        "old_secret_until": None,
        "failures": 0,
        "paused_until": None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Endpoint(**(values | changes))


def claim(*, attempt: int = 1, **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "delivery_id": "wh_1",
        "endpoint": endpoint(),
        "event_id": "evt_1",
        "event_type": "response.completed",
        "response_id": "resp_1",
        "occurred_at": NOW,
        "first_due_at": NOW,
    }
    return Claim(attempt=attempt, **(values | changes))
