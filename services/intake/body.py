"""JSON bodies as intake takes them: anything that every part behind it can write again."""

from __future__ import annotations

import orjson

from services.intake.errors import invalid

_SUSPICIOUS_BRACKETS = 150
# Envelopes, Response objects and events hold a body's values deeper than the body does; what is
# written nests up to 254 levels, less than what can be read.
_MARGIN_LEVELS = 64


def parse_json(body: bytes) -> object:
    """Return the value of a body; raises `ApiError` (400) for no JSON, or one nested too deeply."""
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(
            f"We could not parse the JSON body of your request: {error}.",
            param=None,
            code="invalid_json",
        ) from error
    if body.count(b"[") + body.count(b"{") > _SUSPICIOUS_BRACKETS:
        _refuse_depth(document)
    return document


def _refuse_depth(document: object) -> None:
    wrapped = document
    for _ in range(_MARGIN_LEVELS):
        wrapped = [wrapped]
    try:
        orjson.dumps(wrapped)
    except orjson.JSONEncodeError as error:
        raise invalid(
            "The JSON body of your request is nested too deeply.", param=None, code="invalid_json"
        ) from error
