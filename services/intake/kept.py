"""Intake's use cases on stored responses: read, cancel and delete them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from contracts.principal import Principal
from contracts.responses import CancelResponseV1, ResponseDeletedV1
from contracts.topics import RESPONSES_CONTROL, RESPONSES_LIFECYCLE
from services.intake.admission.keys import ApiKey
from services.intake.domain import StoredResponse, queued_response
from services.intake.errors import invalid, response_not_found
from services.intake.items.history import Reader
from services.intake.log import Log
from services.kit.codec import encode
from services.kit.ids import created_ms, new_id


class OwnView(Protocol):
    """Where orders of a response's owner take effect at once, before their facts are projected."""

    async def cancelled(self, response_id: str) -> None:
        """Let an unfinished response be cancelled. Idempotent."""
        ...

    async def deleted(self, owners: Sequence[tuple[str, str, str]]) -> None:
        """Forget the content of (response id, project, key id) for ever. Idempotent."""
        ...

    async def any_deleted(self, response_ids: Sequence[str]) -> bool:
        """Whether the owner deleted one of these, also if only just now and at this replica."""
        ...


@dataclass
class KeptResponses:
    """Stored responses, as the project that they belong to may use them."""

    reader: Reader
    store: OwnView
    log: Log

    async def find(self, response_id: str, key: ApiKey) -> StoredResponse:
        """Return a stored response of the caller's project; raises `ApiError` (404)."""
        row = await self.reader.get(response_id, project=key.project)
        if row is None:
            raise response_not_found(response_id)
        return row

    async def retrieve(self, response_id: str, key: ApiKey) -> bytes:
        """Return the Response object as JSON, as it is now; raises `ApiError` (404)."""
        row = await self.find(response_id, key)
        if row.response is None and not row.background:
            row = await self.reader.settled(row)
        if row.deleted:
            raise response_not_found(response_id)
        if row.response is not None:
            return row.response.encode()
        created = (created_ms(row.response_id) or 0) // 1000
        request = orjson.loads(row.request or "{}")
        response = queued_response(row.response_id, request, created)
        response["status"] = row.status
        return orjson.dumps(response)

    async def cancel(self, response_id: str, key: ApiKey) -> bytes:
        """Cancel a background response; return it as it is then. One that has ended stays as it is.

        Raises `ApiError`: 400 for a response that is not in the background, 404, 503.
        """
        row = await self.find(response_id, key)
        if not row.background:
            raise invalid("Cannot cancel a synchronous response.", param=None)
        if row.response is None:
            order = CancelResponseV1(response_id=response_id, principal=_owner(key))
            stamp = self.log.stamp(new_id("evt"), response_id)
            await self.log.durable(RESPONSES_CONTROL.name, encode(order, stamp), response_id)
            await self.store.cancelled(response_id)
        return await self.retrieve(response_id, key)

    async def delete(self, response_id: str, key: ApiKey) -> dict[str, Any]:
        """Delete a response everywhere; raises `ApiError` (404, or 503 when Kafka is away)."""
        await self.find(response_id, key)
        fact = ResponseDeletedV1(response_id=response_id, principal=_owner(key))
        stamp = self.log.stamp(f"{response_id}:deleted", response_id)
        await self.log.durable(RESPONSES_LIFECYCLE.name, encode(fact, stamp), response_id)
        # The fact reaches every reader; here it takes effect before the caller can look.
        await self.store.deleted([(response_id, key.project, key.key_id)])
        return {"id": response_id, "object": "response", "deleted": True}


def _owner(key: ApiKey) -> Principal:
    return Principal(project=key.project, key_id=key.key_id, user=key.user)
