"""Events as a WebSocket carries them: one JSON object a message, without the framing of SSE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from services.intake.errors import ApiError

_END = b"\n\n"
_DONE = b"[DONE]"
_STEERING = (
    "This installation does not support steering. Send the input with 'response.create' after "
    "the response."
)


def messages(block: bytes) -> Iterator[bytes]:
    """Yield the JSON of each event of a block of whole SSE events; comments are no events."""
    for frame in block.split(_END):
        lines = [line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line[:5] == b"data:"]
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        if data and data != _DONE:
            yield data


def addressed(message: bytes, stream_id: str | None) -> str:
    """Return an event as the text for its lane; a JSON object stays one, whatever its spaces."""
    if stream_id is not None:
        # The name is of harmless characters alone.
        message = b'%b,"stream_id":"%b"}' % (message.rstrip()[:-1], stream_id.encode())
    return message.decode(errors="replace")


def stream_error(message: bytes) -> dict[str, Any] | None:
    """Return a stream's `error` event in the shape it has on a WebSocket, None for other events."""
    if b'"error"' not in message:
        return None
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError:
        # What a provider sends goes to the client as it came, over HTTP too.
        return None
    if not isinstance(event, dict) or event.get("type") != "error":
        return None
    given = event.get("error")
    told = given if isinstance(given, dict) else event
    number = event.get("sequence_number")
    return {
        "type": "error",
        **({} if number is None else {"sequence_number": number}),
        "status": 500,
        "error": {
            "type": "server_error" if told is event else told.get("type") or "server_error",
            "code": told.get("code"),
            "message": told.get("message") or "The provider had an error.",
            "param": told.get("param"),
        },
    }


def error_event(error: ApiError, stream_id: str | None) -> dict[str, Any]:
    """Return the event that refuses a request, with the status it would have over HTTP."""
    event: dict[str, Any] = {"type": "error", "status": error.status, **error.body()}
    if stream_id is not None:
        event["stream_id"] = stream_id
    headers = {name.decode(): value.decode("latin-1") for name, value in error.headers}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    if headers:
        # Codex looks for them beside the error, the official packages within it.
        event["headers"] = event["error"]["headers"] = headers
    return event


def steer_failed(event: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal of a `response.steer`, which gives the input back."""
    return {
        "type": "response.steer.failed",
        "sequence_number": 0,
        "error": {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "message": _STEERING,
        },
        "steer": {
            "input": event.get("input") or "",
            "previous_response_id": event.get("previous_response_id") or "",
        },
    }
