"""What happens to the record of a key: made, changed, rotated, revoked. No I/O."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from contracts.config import ApiKeyChangedV1, ReplacedSecret
from services.intake.errors import ApiError
from services.kit.ids import new_id

SECRET_PREFIX = "sk-antiphon-"  # noqa: S105 - what every secret starts with
_VISIBLE = len(SECRET_PREFIX) + 6
_MOST_REPLACED = 4
CHANGEABLE = frozenset(
    {
        "name",
        "user",
        "scopes",
        "expires_at",
        "allowed_models",
        "requests_per_minute",
        "tokens_per_minute",
    }
)
"""The fields of a record that its administrator may change; the project is for ever."""


def hash_of(secret: str) -> str:
    """Return what is kept of a secret; it has 256 random bits, so that a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    """Return a secret that nobody had before."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def created(secret: str, *, project: str, now: datetime, **fields: Any) -> ApiKeyChangedV1:
    """Return the first record of a key; `fields` are some of `CHANGEABLE`, `name` among them."""
    return ApiKeyChangedV1(
        key_id=new_id("key"),
        prefix=secret[:_VISIBLE],
        secret_sha256=hash_of(secret),
        project=project,
        created_at=now,
        revision=1,
        **fields,
    )


def changed(record: ApiKeyChangedV1, fields: Mapping[str, Any]) -> ApiKeyChangedV1:
    """Return the record with some of `CHANGEABLE` set; raises `ApiError` (409) when revoked."""
    assert fields.keys() <= CHANGEABLE
    _refuse_revoked(record)
    return _next(record, **fields)


def rotated(
    record: ApiKeyChangedV1, secret: str, *, now: datetime, grace_seconds: int
) -> ApiKeyChangedV1:
    """Return the record with a new secret; the one before is good for `grace_seconds` more.

    Of the secrets before that one the newest few are remembered, with the grace that they had, so
    that their use can be told from an unknown key's. Raises `ApiError` (409) when revoked.
    """
    _refuse_revoked(record)
    before = ReplacedSecret(
        secret_sha256=record.secret_sha256, expires_at=now + timedelta(seconds=grace_seconds)
    )
    return _next(
        record,
        secret_sha256=hash_of(secret),
        prefix=secret[:_VISIBLE],
        replaced=(before, *record.replaced)[:_MOST_REPLACED],
        rotated_at=now,
    )


def revoked(record: ApiKeyChangedV1, *, now: datetime) -> ApiKeyChangedV1:
    """Return the record of a key that is refused from now on; the same when it is already."""
    return record if record.revoked_at is not None else _next(record, revoked_at=now)


def restated(record: ApiKeyChangedV1) -> ApiKeyChangedV1:
    """Return the same record as a change of its own."""
    return _next(record)


def merged(known: ApiKeyChangedV1 | None, heard: ApiKeyChangedV1) -> ApiKeyChangedV1:
    """Return what counts after `heard` was read where `known` counted so far.

    A message that was written in ignorance of the one before it changes nothing, and nothing makes
    a revoked key good again.
    """
    if known is None:
        return heard
    if heard.revision and heard.revision <= known.revision:
        return known
    if known.revoked_at is not None and heard.revoked_at is None:
        return heard.model_copy(update={"revoked_at": known.revoked_at})
    return heard


def _next(record: ApiKeyChangedV1, **fields: Any) -> ApiKeyChangedV1:
    return record.model_copy(update={**fields, "revision": record.revision + 1})


def _refuse_revoked(record: ApiKeyChangedV1) -> None:
    if record.revoked_at is not None:
        raise ApiError(
            409, f"The API key '{record.key_id}' has been revoked for ever.", code="key_revoked"
        )
