"""`stream_options.include_obfuscation`: deltas whose sizes don't tell what they say."""

from __future__ import annotations

import secrets
from typing import Any

from services.worker.chat.turn import Event

_STEP = 16


def wants_obfuscation(request: dict[str, Any]) -> bool:
    """Say whether the client asked for padded deltas; without being asked none is."""
    return (request.get("stream_options") or {}).get("include_obfuscation") is True


def pad(event: Event) -> None:
    """Fill a delta up to the next multiple of 16 characters, in place."""
    delta = event.get("delta")
    if isinstance(delta, str):
        missing = _STEP - len(delta) % _STEP
        event["obfuscation"] = secrets.token_urlsafe(_STEP)[:missing]
