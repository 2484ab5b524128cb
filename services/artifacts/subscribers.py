"""The Kafka edge: facts about responses become calls of the keeper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from contracts.responses import ClaimCheck, ResponseDeletedV1, ResponseFinishedV1
from services.artifacts.domain import Found, Limits, Refused
from services.artifacts.errors import ArtifactsError, UnreadableResponseError
from services.artifacts.outputs import find_files
from services.artifacts.service import Keeper
from services.kit.batches import Received
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.claimcheck import ClaimCheckError, check_out
from services.kit.deadletters import RefusalError

TYPES = frozenset({ResponseFinishedV1.TYPE, ResponseDeletedV1.TYPE})


class LifecycleSubscriber:
    """Handles `responses.lifecycle`. `handled` is told how many messages are done.

    `max_response_bytes` bounds a Response object that is fetched by its claim check.
    """

    def __init__(
        self,
        keeper: Keeper,
        blobs: BlobStore,
        *,
        limits: Limits,
        max_response_bytes: int,
        handled: Callable[[int], None],
    ) -> None:
        self._keeper = keeper
        self._blobs = blobs
        self._limits = limits
        self._max_response_bytes = max_response_bytes
        self._handled = handled

    async def on_lifecycle(self, batch: list[Received]) -> None:
        """Handle facts in their order; idempotent.

        Raises `RefusalError` for one that can never be handled.
        """
        for received in batch:
            try:
                await self._handle(received)
            except ArtifactsError as error:
                raise RefusalError(str(error)) from error
            self._handled(1)

    async def _handle(self, received: Received) -> None:
        envelope = received.envelope
        fact = envelope.data
        if isinstance(fact, ResponseFinishedV1) and fact.store:
            results = await self._files_of(fact)
            await self._keeper.keep(fact, results, traceparent=envelope.traceparent)
        elif isinstance(fact, ResponseDeletedV1):
            await self._keeper.forget(fact, at=envelope.time, traceparent=envelope.traceparent)

    async def _files_of(self, fact: ResponseFinishedV1) -> list[Found | Refused]:
        if fact.payload is None:
            return find_files(fact.response or {}, self._limits)
        payload = await self._fetch(fact.payload)
        # It is big, or it would have come in the message: the event loop must not wait for it.
        return await asyncio.to_thread(_find_in, payload, self._limits)

    async def _fetch(self, claim: ClaimCheck) -> bytes:
        if claim.size_bytes > self._max_response_bytes:
            raise UnreadableResponseError(
                f"the response at {claim.key} has {claim.size_bytes} bytes, "
                f"more than {self._max_response_bytes}"
            )
        try:
            return await check_out(self._blobs, claim)
        except BlobMissingError as error:
            raise UnreadableResponseError(f"there is no response at {claim.key}") from error
        except ClaimCheckError as error:
            raise UnreadableResponseError(str(error)) from error


def _find_in(payload: bytes, limits: Limits) -> list[Found | Refused]:
    try:
        response: Any = orjson.loads(payload)
    except ValueError as error:
        raise UnreadableResponseError(f"the response is not JSON: {error}") from error
    if not isinstance(response, Mapping):
        raise UnreadableResponseError("the response is not a JSON object")
    return find_files(response, limits)
