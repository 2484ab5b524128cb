"""Configuration that every replica needs, kept on compacted topics."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.event import Contract

Scope = Literal["api", "admin"]


class ReplacedSecret(BaseModel):
    """A secret that a key had before it was rotated; it is good until `expires_at`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    secret_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires_at: AwareDatetime


class ApiKeyChangedV1(Contract):
    """The whole state of one API key. Topic `config.changed`, compacted, keyed by
    `api_key/<key_id>`.

    The secret itself is in nobody's store: `secret_sha256` verifies it and `prefix` lets its owner
    recognise it. A revoked key stays as a record, so that its use can be told from an unknown
    key's, and it stays revoked whatever a later message says.

    `allowed_models` are names, or prefixes that end in `*`; without the field every model may be
    asked. The limits count per minute; without them nothing is counted. `replaced` are the last
    secrets before `secret_sha256`. `revision` grows with each change: a message that does not have
    a higher one than the message before it was written in ignorance of that one and has no effect.
    Messages of revision 0 come from writers that do not count; the last of them counts.
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
    allowed_models: tuple[str, ...] | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    replaced: tuple[ReplacedSecret, ...] = ()
    rotated_at: AwareDatetime | None = None
    revision: int = Field(default=0, ge=0)
