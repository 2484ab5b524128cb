"""Endpoints, deliveries to them, and when a delivery is tried again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.webhooks.domain.events import EventType

Responses = Literal["background", "all"]
State = Literal["pending", "delivered", "failed"]
STATES: tuple[State, ...] = ("pending", "delivered", "failed")
KEPT_ATTEMPTS = 10
"""How many of the last attempts of a delivery are kept to be shown."""
_GONE = 410
_OK = range(200, 300)
_FACTORS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a project wants to be told. `responses` says of which responses.

    Secrets are sealed here; `old_secret` also signs until `old_secret_until`. After `failures`
    attempts in a row without success nothing is sent before `paused_until`.
    """

    id: str
    project: str
    name: str
    url: str
    event_types: tuple[EventType, ...]
    responses: Responses
    enabled: bool
    disabled_reason: str | None
    secret: str
    secret_hint: str
    old_secret: str | None
    old_secret_until: datetime | None
    failures: int
    paused_until: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try, begun `at`. `status_code` is None when no answer came; `error` says why not."""

    at: datetime
    latency_ms: int
    status_code: int | None = None
    error: str | None = None

    @property
    def ended_at(self) -> datetime:
        """When it was over: pauses begin then."""
        return self.at + timedelta(milliseconds=self.latency_ms)

    @property
    def succeeded(self) -> bool:
        """Whether the endpoint took the event."""
        return self.status_code in _OK

    @property
    def endpoint_is_gone(self) -> bool:
        """Whether the endpoint asked for no more webhooks, as Standard Webhooks has it."""
        return self.status_code == _GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint, as it is shown. `due_at` is None when nothing will be tried."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: EventType
    response_id: str
    state: State
    attempts: int
    last_attempts: Sequence[Attempt]
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that this process may try now, for the time of its lease.

    `attempt` counts from 1. `endpoint` is as it was when the delivery was claimed.
    """

    delivery_id: str
    endpoint: Endpoint
    event_id: str
    event_type: EventType
    response_id: str
    occurred_at: datetime
    first_due_at: datetime
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the attempt of a claim ended. `retry_at` of None after a failure means: given up."""

    claim: Claim
    attempt: Attempt
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How patiently failed deliveries are tried again.

    Pauses double from `first` to `longest`, each with jitter. It is given up after `attempts` or
    when the next one would come later than `give_up` after the first was due. An endpoint that
    failed `trip` times in a row is asked with one delivery at a time, with pauses up to `probe`.
    """

    attempts: int
    first: timedelta
    longest: timedelta
    give_up: timedelta
    trip: int
    probe: timedelta

    def retry_at(
        self, claim: Claim, attempt: Attempt, *, asked: timedelta | None = None
    ) -> datetime | None:
        """Return when a failed claim is due again, or None to give up.

        `asked` is what the endpoint wants as a pause; it may lengthen ours up to `longest`.
        """
        if claim.attempt >= self.attempts or attempt.endpoint_is_gone:
            return None
        pause = self._pause(claim.attempt, self.longest)
        if asked is not None:
            pause = max(pause, min(asked, self.longest))
        due = attempt.ended_at + pause
        return due if due <= claim.first_due_at + self.give_up else None

    def paused_until(self, failures: int, at: datetime) -> datetime | None:
        """Return how long an endpoint is left alone after so many failures in a row."""
        if failures < self.trip:
            return None
        return at + self._pause(failures - self.trip + 1, self.probe)

    def _pause(self, failures: int, longest: timedelta) -> timedelta:
        ceiling = min(longest, self.first * (1 << min(failures - 1, _FACTORS)))
        part: float = random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        return ceiling * part
