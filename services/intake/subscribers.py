"""Intake's Kafka edge: projects accepted commands and lifecycle facts into PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
from services.intake.admission.limiter import Settlement
from services.intake.admission.settling import Settler, settlement
from services.intake.conversations.turns_store import TurnStore
from services.intake.domain import AcceptedRow, FinishedRow, TurnEnd, output_items
from services.intake.store import ResponseStore
from services.kit.batches import Received
from services.kit.blobs.store import BlobStore
from services.kit.claimcheck import check_out
from services.kit.clock import Clock


@dataclass(slots=True)
class _Changes:
    """What a batch brings, a list per statement."""

    accepted: list[AcceptedRow] = field(default_factory=list)
    started: list[tuple[str, str, str]] = field(default_factory=list)
    finished: list[FinishedRow] = field(default_factory=list)
    deleted: list[tuple[str, str, str]] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    ends: list[TurnEnd] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)


class Projection:
    """Turns batches of messages into one statement per kind. Idempotent, indifferent to order."""

    def __init__(
        self,
        store: ResponseStore,
        turns: TurnStore,
        blobs: BlobStore,
        clock: Clock,
        settler: Settler | None = None,
    ) -> None:
        self._store = store
        self._turns = turns
        self._blobs = blobs
        self._clock = clock
        self._settler = settler
        self.on_step: Callable[[], None] = lambda: None
        """Called for each payload that was fetched: a slow store makes batches long."""

    async def on_messages(self, batch: list[Received]) -> None:
        """Project a batch; returns when all of it is in the database."""
        changes = _Changes()
        for received in batch:
            await self._collect(received.envelope.data, changes)
        if changes.accepted:
            await self._store.accepted(changes.accepted)
        if changes.started:
            await self._store.started(changes.started)
        if changes.finished:
            await self._store.finished(changes.finished)
        if changes.deleted:
            await self._store.deleted(changes.deleted)
        if changes.turns:
            await self._turns.accepted(changes.turns, now=self._clock.now())
        if changes.ends:
            # After the responses: a turn that was cancelled or deleted leaves nothing behind.
            await self._turns.settle(changes.ends, now=self._clock.now())
        if self._settler is not None and changes.settlements:
            await self._settler.settle(changes.settlements)

    async def _collect(self, data: Contract, changes: _Changes) -> None:
        if isinstance(data, RunResponseV1):
            if data.conversation_id is not None:
                changes.turns.append(data.response_id)
            if data.store:
                changes.accepted.append(await self._accepted(data))
        elif isinstance(data, ResponseFinishedV1):
            response = await self._response(data)
            if response.get("conversation") is not None:
                changes.ends.append(_turn_end(data, response))
            if data.store:
                changes.finished.append(_finished(data, response))
            if self._settler is not None and (limits := self._settler.limits_of(data)):
                # Of what is not stored even the usage is fetched only for a key with limits.
                if data.payload is not None and not response:
                    response = dict(await self._payload(data.payload))
                changes.settlements.append(settlement(data, response, limits))
        elif isinstance(data, ResponseStartedV1 | ResponseDeletedV1):
            owner = (data.response_id, data.principal.project, data.principal.key_id)
            begun = isinstance(data, ResponseStartedV1)
            (changes.started if begun else changes.deleted).append(owner)

    async def _payload(self, claim: ClaimCheck) -> Any:
        payload = await check_out(self._blobs, claim)
        self.on_step()
        return orjson.loads(payload)

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

    async def _response(self, data: ResponseFinishedV1) -> dict[str, Any]:
        if data.payload is None:
            return data.response or {}
        # What is not stored is fetched only for the conversation that waits for it.
        if not data.store and not await self._turns.is_open(data.response_id):
            return {}
        return dict(await self._payload(data.payload))


def _finished(data: ResponseFinishedV1, response: dict[str, Any]) -> FinishedRow:
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


def _turn_end(data: ResponseFinishedV1, response: dict[str, Any]) -> TurnEnd:
    """What was said stays, even if it was cut short; what failed can be said again."""
    said = data.status in ("completed", "incomplete")
    return TurnEnd(data.response_id, output_items(response) if said else None)


def _json(value: Any) -> str:
    # PostgreSQL's text has no NUL; JSON's escape for it is text like any other.
    return orjson.dumps(value).decode()
