"""Messages to bytes and back with orjson, the fast twin of `contracts.event`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from contracts.event import Contract, Envelope, from_object
from contracts.registry import CONTRACTS


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        # Never with an exponent, which the JSON Schemas of our contracts do not allow.
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: object) -> bytes:
    """Return compact JSON; Decimals become strings, aware datetimes RFC 3339."""
    return orjson.dumps(value, default=_plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The envelope of a message to be: see `contracts.event.Envelope`."""

    event_id: str
    source: str
    subject: str
    time: datetime
    traceparent: str | None = None


def encode(data: Contract, stamp: Stamp, *, raw: Mapping[str, bytes] | None = None) -> bytes:
    """Return one message in the CloudEvents JSON format.

    `raw` gives fields of `data` that are JSON already (a request body, a Response object): they are
    spliced in as they are, without being parsed. The caller answers for their being valid JSON.
    """
    fields: dict[str, Any] = data.model_dump(exclude_none=True)
    for name, value in (raw or {}).items():
        fields[name] = orjson.Fragment(value)
    message: dict[str, Any] = {
        "specversion": "1.0",
        "id": stamp.event_id,
        "source": stamp.source,
        "type": data.TYPE,
        "subject": stamp.subject,
        "time": stamp.time,
        "datacontenttype": "application/json",
        "data": fields,
    }
    if stamp.traceparent:
        message["traceparent"] = stamp.traceparent
    return dumps(message)


def decode(value: bytes) -> Envelope:
    """Parse and validate a message of any registered contract; raises `ValueError`."""
    return from_object(orjson.loads(value), CONTRACTS)
