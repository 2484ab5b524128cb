"""Intake's use cases on the way of a request: accept it, wait for its answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from contracts.packs import Entry, Flag
from contracts.principal import Principal
from contracts.providers import Providers
from contracts.responses import ClaimCheck, RunResponseV1
from contracts.topics import CLAIM_CHECK_BYTES, RESPONSES_COMMANDS
from services.intake.accepted import Accepted, Answer, Place
from services.intake.admission.estimate import estimate_tokens
from services.intake.admission.keys import ApiKey
from services.intake.admission.limiter import Ask, RateLimiter
from services.intake.body import parse_json
from services.intake.conversations.turns import TurnTaker
from services.intake.domain import conversation_of, queued_response
from services.intake.errors import (
    history_too_large,
    model_not_found,
    overloaded,
    restarting,
    too_late,
    unavailable,
)
from services.intake.files import RequestFiles, names_files
from services.intake.items.history import Reader, items_of
from services.intake.log import Log
from services.intake.request import CreateResponse, parse_create
from services.intake.sockets.lanes import Context
from services.intake.streaming.followers import DrainedError, Follower
from services.intake.streaming.hubs import Hub
from services.intake.tool_policy import Headers, warnings_about_tools
from services.kit.blobs.store import BlobStore
from services.kit.claimcheck import check_in
from services.kit.clock import Clock
from services.kit.codec import encode
from services.kit.ids import new_id


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how large things may get."""

    response_seconds: float
    max_open: int
    max_chain: int
    max_history_bytes: int
    stream_buffer_bytes: int
    estimated_output_tokens: int = 1_000


@dataclass
class Responses:
    """Accepts requests for responses and gets them answered."""

    log: Log
    hub: Hub
    reader: Reader
    turns: TurnTaker
    blobs: BlobStore
    providers: Providers
    clock: Clock
    bounds: Bounds
    limits: RateLimiter | None = None
    files: RequestFiles | None = None
    _open: int = 0

    @property
    def open_requests(self) -> int:
        """How many accepted requests wait for their answer here."""
        return self._open

    async def accept(
        self,
        body: bytes,
        key: ApiKey,
        *,
        place: Place | None = None,
        history: bytes | None = None,
        parsed: tuple[dict[str, Any], CreateResponse] | None = None,
    ) -> Accepted:
        """Validate a create request and put its command on the log, with a new id if no `place`.

        `history` is a JSON array of items, for a caller that knows what precedes the input;
        `parsed` is the body when it was validated before.
        When this returns Kafka has acknowledged the command and the response will reach a terminal
        state. Raises `ApiError`; then nothing is on any topic, but for a 503, after which a command
        whose acknowledgement was late may still be run.
        """
        if self._open >= self.bounds.max_open:
            raise overloaded()
        document, request = parsed or _parse(body)
        if not self.providers.serving(request.model) or not key.allows(request.model):
            raise model_not_found(request.model)
        warnings: Headers = ()
        if request.tools:
            warnings = warnings_about_tools(self.providers, request.model, document)
        if key.limits is not None and self.limits is not None:
            place = place or Place(new_id("resp"), self.hub.partition)
            free = partial(self.accept, body, replace(key, limits=None))
            work = partial(free, place=place, history=history, parsed=(document, request))
            accepted, headers = await self.limits.run(self._ask(document, key, place), work)
            accepted.headers = (*accepted.headers, *headers)
            return accepted
        response_id = new_id("resp") if place is None else place.response_id
        if place is not None and place.again:
            await self.turns.abandon(document, response_id)
        if history is None:
            history = await self._history(request, document, response_id, key)
        partition = self.hub.partition if place is None else place.events_partition
        command = self._command(request, document, key, response_id, partition)
        try:
            accepted = await self._publish(command, await self._encode(command, body, history))
        except BaseException:
            await self.turns.abandon(document, response_id)
            raise
        accepted.headers = warnings
        return accepted

    def _command(
        self,
        request: CreateResponse,
        document: dict[str, Any],
        key: ApiKey,
        response_id: str,
        partition: int,
    ) -> RunResponseV1:
        """Return the command for a request, without the request itself."""
        return RunResponseV1(
            response_id=response_id,
            principal=_principal(request, key),
            model=request.model,
            accepted_at=self.clock.now(),
            events_partition=partition,
            stream=bool(request.stream),
            background=bool(request.background),
            store=request.store is not False,
            service_tier=request.service_tier,
            previous_response_id=request.previous_response_id,
            conversation_id=conversation_of(document),
        )

    def _ask(self, document: dict[str, Any], key: ApiKey, place: Place) -> Ask:
        """Return what a request asks of its key's limits."""
        assert key.limits is not None
        tokens = 0
        if key.limits.tokens_per_minute is not None:
            tokens = estimate_tokens(document, most_output=self.bounds.estimated_output_tokens)
        return Ask(key.key_id, key.limits, place.response_id, tokens)

    async def limit_headers(self, key: ApiKey) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers about a key's limits for an answer that nothing was reserved for."""
        if key.limits is None or self.limits is None:
            return ()
        return await self.limits.headers(Ask(key.key_id, key.limits))

    async def _publish(self, command: RunResponseV1, value: bytes) -> Accepted:
        """Put a command on the log and listen for its answer."""
        follower = Follower(command.response_id, limit_bytes=self.bounds.stream_buffer_bytes)
        self.hub.add(follower)
        self._open += 1
        accepted = Accepted(
            command.response_id,
            stream=command.stream,
            background=command.background,
            follower=follower,
            close=lambda: self._close(follower),
        )
        try:
            await self.log.durable(RESPONSES_COMMANDS.name, value, command.response_id)
        except BaseException:
            accepted.close()
            raise
        return accepted

    def _close(self, follower: Follower) -> None:
        self.hub.remove(follower)
        self._open -= 1

    async def answer(self, accepted: Accepted) -> Answer:
        """Return the JSON answer of an accepted request; raises `ApiError`.

        504 when it takes too long, 503 when this server must stop before the answer is there.
        """
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.bounds.response_seconds, accepted.follower.leave)
        try:
            while entries := await accepted.follower.take():
                last = entries[-1]
                if last.flags & Flag.LAST:
                    self.reader.note_finished(accepted.response_id)
                    return Answer.of(last.status, await self.payload(last))
        except DrainedError as error:
            keyed = accepted.on_failure is not None
            raise restarting(accepted.response_id, keyed=keyed) from error
        finally:
            timer.cancel()
        raise too_late(accepted.response_id)

    async def ask(self, command: RunResponseV1, body: bytes, history: bytes | None) -> Answer:
        """Put the command of an operation on the log and return its answer; raises `ApiError`."""
        accepted = await self._publish(command, await self._encode(command, body, history))
        try:
            return await self.answer(accepted)
        finally:
            accepted.close()

    async def payload(self, entry: Entry) -> bytes:
        """Return an entry's bytes, from the object store if they are there."""
        if entry.flags & Flag.CLAIM:
            return await self.blobs.get(entry.payload.decode())
        return entry.payload

    async def _history(
        self, request: CreateResponse, document: dict[str, Any], response_id: str, key: ApiKey
    ) -> bytes | None:
        if request.previous_response_id is None:
            return await self.turns.begin(document, response_id, key)
        return (await self.context(request.previous_response_id, key)).items

    async def context(self, response_id: str, key: ApiKey) -> Context:
        """Return what a response that follows this stored one is given; raises `ApiError` (400)."""
        chain = await self.reader.finished_chain(
            response_id, project=key.project, most=self.bounds.max_chain
        )
        before = [entry.item for entry in await self.turns.before(chain[0])]
        history = orjson.dumps([*before, *items_of(chain)])
        if len(history) > self.bounds.max_history_bytes:
            raise history_too_large("previous_response_id")
        ids = tuple(row.response_id for row in chain)
        return Context(response_id, history, ids, stored=True)

    async def _encode(self, command: RunResponseV1, body: bytes, history: bytes | None) -> bytes:
        if self.files is not None and names_files(body, history):
            command = await self.files.attach(command, body, history)
        raw = {"request": body} if history is None else {"request": body, "history": history}
        payload = b'{"request":%b,"history":%b}' % (body, history or b"[]")
        claim = None
        if len(payload) > CLAIM_CHECK_BYTES:
            claim = await self._claim(f"{command.response_id}-request", payload)
        if claim is not None:
            raw = {"payload": orjson.dumps(claim.model_dump())}
        stamp = self.log.stamp(command.response_id, command.response_id)
        return encode(command, stamp, raw=raw)

    async def _claim(self, key: str, payload: bytes) -> ClaimCheck | None:
        """Store a large payload; raises `ApiError` (503), as late as when Kafka takes nothing."""
        try:
            async with asyncio.timeout(self.log.accept_seconds):
                return await check_in(self.blobs, key=key, payload=payload)
        except OSError as error:
            raise unavailable("The request could not be stored, try again.") from error

    def queued(self, accepted: Accepted, body: bytes) -> dict[str, Any]:
        """Return the Response object of a background request that has just been accepted."""
        return queued_response(
            accepted.response_id, orjson.loads(body), int(self.clock.now().timestamp())
        )


def _parse(body: bytes) -> tuple[dict[str, Any], CreateResponse]:
    document = parse_json(body)
    request = parse_create(document)
    assert isinstance(document, dict)
    return document, request


def _principal(request: CreateResponse, key: ApiKey) -> Principal:
    metadata = request.metadata or {}
    return Principal(
        project=key.project,
        key_id=key.key_id,
        user=key.user or request.safety_identifier or request.user,
        chat=metadata.get("chat_id"),
    )
