"""Intake's Kafka edge: projects accepted commands and lifecycle facts into PostgreSQL."""

from __future__ import annotations

from typing import Any

import orjson

from contracts.event import Contract
from contracts.responses import (
    ClaimCheck,
    ResponseDeletedV1,
    ResponseFinishedV1,
    ResponseStartedV1,
    RunResponseV1,
)
from services.intake.domain import AcceptedRow, FinishedRow
from services.intake.store import ResponseStore
from services.kit.blobs import BlobStore
from services.kit.claimcheck import check_out
from services.kit.consumer import Received


class Projection:
    """Turns batches of messages into one statement per kind. Idempotent, indifferent to order."""

    def __init__(self, store: ResponseStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    async def on_messages(self, batch: list[Received]) -> None:
        """Project a batch; returns when all of it is in the database."""
        accepted: list[AcceptedRow] = []
        finished: list[FinishedRow] = []
        started: list[str] = []
        deleted: list[tuple[str, str, str]] = []
        for received in batch:
            data: Contract = received.envelope.data
            if isinstance(data, RunResponseV1) and data.store:
                accepted.append(await self._accepted(data))
            elif isinstance(data, ResponseFinishedV1) and data.store:
                finished.append(await self._finished(data))
            elif isinstance(data, ResponseStartedV1):
                started.append(data.response_id)
            elif isinstance(data, ResponseDeletedV1):
                owner = data.principal
                deleted.append((data.response_id, owner.project, owner.key_id))
        if accepted:
            await self._store.accepted(accepted)
        if started:
            await self._store.started(started)
        if finished:
            await self._store.finished(finished)
        if deleted:
            await self._store.deleted(deleted)

    async def _payload(self, claim: ClaimCheck) -> Any:
        return orjson.loads(await check_out(self._blobs, claim))

    async def _accepted(self, data: RunResponseV1) -> AcceptedRow:
        request = data.request
        if data.payload is not None:
            request = (await self._payload(data.payload))["request"]
        return AcceptedRow(
            response_id=data.response_id,
            project=data.principal.project,
            key_id=data.principal.key_id,
            user=data.principal.user,
            chat=data.principal.chat,
            model=data.model,
            background=data.background,
            stream=data.stream,
            events_partition=data.events_partition,
            previous_response_id=data.previous_response_id,
            accepted_at=data.accepted_at,
            request=_json(request),
        )

    async def _finished(self, data: ResponseFinishedV1) -> FinishedRow:
        response = data.response
        if data.payload is not None:
            response = await self._payload(data.payload)
        return FinishedRow(
            response_id=data.response_id,
            project=data.principal.project,
            key_id=data.principal.key_id,
            user=data.principal.user,
            chat=data.principal.chat,
            model=data.model,
            events_partition=data.events_partition,
            accepted_at=data.accepted_at,
            finished_at=data.finished_at,
            status=data.status,
            last_sequence_number=data.last_sequence_number,
            response=_json(response),
        )


def _json(value: Any) -> str:
    # PostgreSQL's text has no NUL; JSON's escape for it is text like any other.
    return orjson.dumps(value).decode()
