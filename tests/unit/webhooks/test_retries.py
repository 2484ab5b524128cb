"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhooks.domain.endpoints import Attempt, RetryRule
from services.webhooks.settings import WebhooksSettings
from tests.unit.webhooks.samples import NOW, claim

RULE = WebhooksSettings().retry_rule


def failed(at: datetime = NOW, status: int = 500) -> Attempt:
    return Attempt(at=at, latency_ms=0, status_code=status)


def whole_life(rule: RetryRule) -> list[datetime]:
    """The times of all attempts at an endpoint that is never there."""
    times = [NOW]
    while True:
        due = rule.retry_at(claim(attempt=len(times)), failed(times[-1]))
        if due is None:
            return times
        times.append(due)


def test_a_dead_endpoint_is_tried_for_three_days_and_soon_at_first() -> None:
    times = whole_life(RULE)
    assert times[1] - NOW <= timedelta(seconds=5)
    assert times[4] - NOW <= timedelta(minutes=2)
    assert timedelta(hours=66) < times[-1] - NOW <= timedelta(hours=72)
    assert len(times) <= RULE.attempts


@given(st.integers(1, 39))
def test_pauses_double_with_jitter_up_to_the_longest(attempt: int) -> None:
    due = RULE.retry_at(claim(attempt=attempt), failed())
    assert due is not None
    ceiling = min(timedelta(hours=4), timedelta(seconds=5) * 2 ** (attempt - 1))
    assert ceiling / 2 <= due - NOW <= ceiling


def test_a_pause_begins_when_the_attempt_has_ended() -> None:
    slow = Attempt(at=NOW, latency_ms=15_000, error="no answer in time")
    due = RULE.retry_at(claim(attempt=1), slow)
    assert due is not None
    assert due >= NOW + timedelta(seconds=17.5)


def test_attempts_have_a_bound() -> None:
    assert RULE.retry_at(claim(attempt=RULE.attempts), failed()) is None


def test_an_endpoint_that_is_gone_is_not_tried_again() -> None:
    assert RULE.retry_at(claim(attempt=1), failed(status=410)) is None


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        (timedelta(minutes=2), timedelta(minutes=2), timedelta(minutes=2)),
        (timedelta(seconds=1), timedelta(seconds=2.5), timedelta(seconds=5)),
        (timedelta(days=30), timedelta(hours=4), timedelta(hours=4)),
    ],
)
def test_an_endpoint_may_ask_for_a_longer_pause(
    asked: timedelta, least: timedelta, most: timedelta
) -> None:
    due = RULE.retry_at(claim(attempt=1), failed(status=503), asked=asked)
    assert due is not None
    assert least <= due - NOW <= most


def test_an_endpoint_is_left_alone_after_some_failures_in_a_row_and_longer_after_more() -> None:
    assert RULE.paused_until(RULE.trip - 1, NOW) is None
    first, later = RULE.paused_until(RULE.trip, NOW), RULE.paused_until(1_000_000, NOW)
    assert first is not None
    assert later is not None
    assert first - NOW <= timedelta(seconds=5)
    assert timedelta(seconds=150) <= later - NOW <= timedelta(seconds=300)


@pytest.mark.parametrize(
    ("status", "ok"), [(199, False), (200, True), (204, True), (299, True), (300, False)]
)
def test_success_is_2xx(status: int, ok: bool) -> None:
    assert failed(status=status).succeeded == ok
    assert not Attempt(at=NOW, latency_ms=1, error="no answer").succeeded


def test_a_lease_shorter_than_an_attempt_is_no_setting() -> None:
    with pytest.raises(ValueError, match="lease_seconds"):
        WebhooksSettings(lease_seconds=5, timeout_seconds=10)
    with pytest.raises(ValueError, match="allow_networks"):
        WebhooksSettings(allow_networks="10.0.0.0/99")


def test_the_longest_pause_of_any_settings_is_a_time() -> None:
    rule = WebhooksSettings(
        first_retry_seconds=3_600, longest_retry_seconds=86_400, give_up_hours=720
    ).retry_rule
    assert rule.paused_until(10**9, NOW) is not None
    assert datetime.max.replace(tzinfo=UTC) > whole_life(rule)[-1]
