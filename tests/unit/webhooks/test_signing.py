"""Signatures that two other implementations of Standard Webhooks accept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import openai
import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from services.webhooks.domain.events import (
    EVENT_TYPES,
    Event,
    EventType,
    delivery_id,
    payload,
)
from services.webhooks.domain.signing import headers, hint, new_secret

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
# The example that the specification's own test suites share.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SENT_AT = datetime.fromtimestamp(1614265330, UTC)
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def event_body(event_type: EventType) -> bytes:
    return payload(event_id="evt_1", event_type=event_type, response_id="resp_1", occurred_at=AT)


def test_the_example_of_the_specification_gives_its_signature() -> None:
    made = headers(BODY, message_id=MESSAGE, at=SENT_AT, secrets_in_force=[SECRET])
    assert made == {
        "webhook-id": MESSAGE,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_official_client_unwraps_an_event_of_its_own_shape(event_type: EventType) -> None:
    secret, body = new_secret(), event_body(event_type)
    made = headers(body, message_id="wh_1", at=datetime.now(UTC), secrets_in_force=[secret])
    event = openai.OpenAI(api_key="none").webhooks.unwrap(body, made, secret=secret)
    assert type(event).model_validate(json.loads(body), strict=True) == event
    assert event.model_dump() == {
        "id": "evt_1",
        "object": "event",
        "created_at": int(AT.timestamp()),
        "type": event_type,
        "data": {"id": "resp_1"},
    }


@given(st.text(max_size=200), st.text("abcXYZ012_-", min_size=1, max_size=40))
def test_any_text_that_is_signed_is_accepted_and_any_other_is_not(text: str, name: str) -> None:
    secret, body = new_secret(), json.dumps(text).encode()
    made = headers(body, message_id=name, at=datetime.now(UTC), secrets_in_force=[secret])
    receiver = standardwebhooks.Webhook(secret)
    assert receiver.verify(body, made) == text
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.verify(body + b" ", made)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(body, made)


def test_both_secrets_are_accepted_while_both_sign() -> None:
    old, new = new_secret(), new_secret()
    made = headers(BODY, message_id="wh_1", at=datetime.now(UTC), secrets_in_force=[new, old])
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(BODY, made)
        openai.OpenAI(api_key="none").webhooks.verify_signature(BODY, made, secret=secret)


def test_a_secret_is_long_random_and_its_hint_tells_little_of_it() -> None:
    secret = new_secret()
    assert len(secret) == len("whsec_") + 44
    assert new_secret() != secret
    assert hint(secret) == f"whsec_...{secret[-4:]}"


def test_ids_are_the_same_for_the_same_event_and_differ_for_every_other() -> None:
    events = [
        Event(type=kind, response_id=name, project="p", background=True, occurred_at=AT)
        for kind in EVENT_TYPES
        for name in ("resp_1", "resp_2")
    ]
    ids = {delivery_id(endpoint, event.id) for event in events for endpoint in ("we_1", "we_2")}
    assert len(ids) == 2 * len(events)
    again = Event(
        type=EVENT_TYPES[0],
        response_id="resp_1",
        project="p",
        background=True,
        occurred_at=AT + timedelta(hours=1),
    )
    assert again.id == events[0].id
