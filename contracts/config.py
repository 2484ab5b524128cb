"""Configuration that every replica needs, kept on compacted topics."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts.event import Contract

Scope = Literal["api", "admin"]


class ApiKeyChangedV1(Contract):
    """The whole state of one API key. Topic `config.changed`, compacted, keyed by
    `api_key/<key_id>`.

    The secret itself is in nobody's store: `secret_sha256` verifies it and `prefix` lets its owner
    recognise it. A revoked key stays as a record, so that its use can be told from an unknown
    key's.
    """

    TYPE: ClassVar[str] = "antiphon.config.api_key_changed.v1"

    key_id: str
    name: str
    prefix: str
    secret_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    project: str
    user: str | None = None
    scopes: tuple[Scope, ...] = ("api",)
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
