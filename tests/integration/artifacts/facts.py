"""Facts about responses, and the keeper's announcements, as the tests need them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.principal import Principal
from contracts.responses import ResponseDeletedV1, ResponseFinishedV1
from services.artifacts.domain import Artifact
from services.artifacts.service import GoneReason

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
FINISHED_AT = datetime(2027, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def principal(project: str) -> Principal:
    return Principal(project=project, key_id=f"key_{project}", user="ada", chat=None)


def png(mark: str) -> bytes:
    """Return bytes that are a picture to whoever looks at the beginning, different by `mark`."""
    return PNG + mark.encode()


def image_item(content: bytes, number: int = 0) -> dict[str, Any]:
    return {
        "id": f"ig_{number}",
        "type": "image_generation_call",
        "status": "completed",
        "result": base64.b64encode(content).decode(),
    }


def file_item(content: bytes, filename: str, number: int = 0) -> dict[str, Any]:
    part = {
        "type": "output_file",
        "file_data": base64.b64encode(content).decode(),
        "filename": filename,
    }
    return {"id": f"msg_{number}", "type": "message", "content": [part]}


def finished(
    response_id: str,
    items: Sequence[dict[str, Any]],
    *,
    attempt: int = 1,
    project: str = "research",
    **changes: Any,
) -> ResponseFinishedV1:
    values: dict[str, Any] = {
        "response_id": response_id,
        "attempt": attempt,
        "status": "completed",
        "principal": principal(project),
        "model": "gpt-image",
        "provider": "openai",
        "accepted_at": FINISHED_AT,
        "started_at": FINISHED_AT,
        "finished_at": FINISHED_AT,
        "events_partition": 0,
        "response": {"id": response_id, "object": "response", "output": list(items)},
    }
    return ResponseFinishedV1(**(values | changes))


def deleted(response_id: str, *, project: str = "research") -> ResponseDeletedV1:
    return ResponseDeletedV1(response_id=response_id, principal=principal(project))


class Announcements:
    """An announcer that remembers what it was told, and fails when it is told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.traceparents: list[str | None] = []
        self.broken = False

    async def stored(self, artifact: Artifact, *, traceparent: str | None) -> None:
        self._tell("stored", artifact, traceparent)

    async def expired(
        self, artifact: Artifact, reason: GoneReason, *, traceparent: str | None
    ) -> None:
        self._tell(reason, artifact, traceparent)

    def _tell(self, what: str, artifact: Artifact, traceparent: str | None) -> None:
        if self.broken:
            raise ConnectionError("no broker answers")
        self.told.append((what, artifact.id))
        self.traceparents.append(traceparent)
