"""Signatures of the Standard Webhooks specification 1.0: symmetric, version `v1`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

PREFIX = "whsec_"
_SECRET_BYTES = 32
_SHOWN = 4


def new_secret() -> str:
    """Return a new signing secret: `whsec_` and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def hint(secret: str) -> str:
    """Return what may be shown of a secret, to tell it from others."""
    return f"{PREFIX}...{secret[-_SHOWN:]}"


def headers(
    body: bytes, *, message_id: str, at: datetime, secrets_in_force: Sequence[str]
) -> dict[str, str]:
    """Return the three headers of one attempt, with one signature for each secret.

    `at` is the time of the attempt: receivers refuse one that is minutes away from their own.
    """
    timestamp = str(int(at.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(signed, secret) for secret in secrets_in_force),
    }


def _signature(signed: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
