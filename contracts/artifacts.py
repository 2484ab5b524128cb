"""Files that responses produced, as facts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.event import Contract
from contracts.principal import Principal


class ArtifactStoredV1(Contract):
    """The content of an artifact is durable. Topic `artifacts.stored`, keyed by the artifact id.

    Equal contents (`sha256`) share one blob. `content_type` was detected from the bytes, not taken
    from their producer. `item_id` is the output item it came from.
    """

    TYPE: ClassVar[str] = "antiphon.artifact.stored.v1"

    artifact_id: str
    response_id: str
    item_id: str
    principal: Principal
    kind: Literal["image", "file", "audio"]
    filename: str
    content_type: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ArtifactExpiredV1(Contract):
    """An artifact is gone, with its bytes unless others share them. Topic `artifacts.expired`."""

    TYPE: ClassVar[str] = "antiphon.artifact.expired.v1"

    artifact_id: str
    response_id: str
    principal: Principal
    reason: Literal["response_deleted", "retention"]
