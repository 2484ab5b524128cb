"""Idempotency keys: the first request with a key gets a response, further ones get the same."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from services.intake.accepted import Accepted, Answer, Place
from services.intake.admission.keys import ApiKey
from services.intake.body import parse_json
from services.intake.domain import StoredResponse
from services.intake.errors import ApiError, response_not_found, restarting, too_late
from services.intake.idempotency_errors import bad_key, forgotten, in_use, reused
from services.intake.service import Responses
from services.intake.streaming.followers import DrainedError
from services.intake.streaming.log_reads import LogRead
from services.intake.streaming.resume import Resumer
from services.kit.ids import created_ms, new_id
from services.kit.outages import DATABASE_OUTAGES

logger = logging.getLogger(__name__)
_NAME = re.compile(rb"[\x20-\x7e]{1,255}")
_ROUTE = b"POST /v1/responses\n"
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
_COME_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_CODES = {"rate_limit_exceeded": 429, "invalid_prompt": 400}


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A request with a key, and the response that it shall have if the key is free."""

    project: str
    name: str
    body_sha256: bytes
    response_id: str
    events_partition: int


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who has a key. `taken`: the caller, who must send the command. `published`: it is sent.

    `status` and `error` are what the client of a failed response was told.
    """

    body_sha256: bytes
    response_id: str
    events_partition: int
    attempt: int
    status: int | None
    error: str | None
    taken: bool
    published: bool


class IdempotencyKeys(Protocol):
    """Where keys are kept."""

    async def take(self, claim: KeyClaim) -> KeyHolder | None:
        """Take the key or return who has it, None when that is not known at this moment."""
        ...

    async def release(self, claim: KeyClaim, attempt: int) -> None:
        """Give a key back, unless somebody took it over since. Idempotent."""
        ...

    async def published(self, claim: KeyClaim) -> None:
        """Note that the command is on the log. Idempotent."""
        ...

    async def failed(self, claim: KeyClaim, *, status: int, error: str) -> None:
        """Note what the client of a failed response was told. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """A request whose key has a response already, on the log or at its end.

    `row` is that response, or no more than its id and its partition: when it is not stored, or was
    put on the log just now. `is_kept` says that there will be something to tell.
    """

    claim: KeyClaim
    holder: KeyHolder
    row: StoredResponse
    stream: bool
    background: bool
    is_kept: bool


@dataclass
class Idempotency:
    """Lets requests with a key in, each key once.

    The key is taken before the command is on the log and holds the response's id. When whoever took
    it dies in between, the next request sends the command again under the same id: workers run a
    response once, however many commands there are.
    """

    keys: IdempotencyKeys
    responses: Responses
    resumer: Resumer
    wait_seconds: float

    async def accept(self, name: bytes, body: bytes, key: ApiKey) -> Accepted | Replay:
        """Accept the first request with this key; return the response of any further one.

        Raises `ApiError`: what `Responses.accept` raises, which leaves the key free unless the
        command may be on the log; 400 for a bad key; 409 when the key was used with another body,
        or when the first request with it is not accepted within the bound.
        """
        claim = KeyClaim(
            project=key.project,
            name=_checked(name),
            body_sha256=hashlib.sha256(_ROUTE + body).digest(),
            response_id=new_id("resp"),
            events_partition=self.responses.hub.partition,
        )
        clock = self.responses.clock
        deadline = clock.monotonic() + self.wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            holder = await self.keys.take(claim)
            if holder is not None:
                if holder.body_sha256 != claim.body_sha256:
                    raise reused()
                if holder.taken:
                    return await self._send(claim, holder, body, key)
                if holder.published:
                    return await self._replay(claim, holder, parse_json(body), key)
            if clock.monotonic() >= deadline:
                raise in_use()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _send(
        self, claim: KeyClaim, holder: KeyHolder, body: bytes, key: ApiKey
    ) -> Accepted | Replay:
        again = holder.response_id != claim.response_id
        held = replace(claim, response_id=holder.response_id)
        place = Place(holder.response_id, holder.events_partition, again=again)
        try:
            accepted = await self.responses.accept(body, key, place=place)
        except ApiError as error:
            # After a 503 the command may be on the log, and so may that of whoever had the key
            # before: the next request sends the same.
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE and not again:
                await self._quietly(self.keys.release(held, holder.attempt))
            raise
        try:
            if not _is_stored(parse_json(body)):
                await self._quietly(self.keys.published(held))
        except BaseException:
            accepted.close()
            raise
        if again and (accepted.stream or not accepted.background):
            # What was told of an earlier command is on the log, not in this follower.
            accepted.close()
            row = _unread(held, holder)
            return Replay(held, holder, row, accepted.stream, accepted.background, is_kept=True)
        accepted.on_failure = lambda answer: self._failed(held, holder, answer)
        return accepted

    async def _replay(
        self, claim: KeyClaim, holder: KeyHolder, document: Any, key: ApiKey
    ) -> Replay:
        held = replace(claim, response_id=holder.response_id)
        is_stored = _is_stored(document)
        row: StoredResponse | None = _unread(held, holder)
        if is_stored:
            row = await self.responses.reader.get(holder.response_id, project=key.project)
        if row is None:
            raise response_not_found(holder.response_id)
        stream, background = bool(document.get("stream")), bool(document.get("background"))
        return Replay(held, holder, row, stream, background, is_kept=is_stored)

    async def answer(self, replay: Replay) -> Answer:
        """Return what the first client was told as JSON, once its response has ended.

        Raises `ApiError`: 504 when it takes too long, 409 when it was not kept, 503 when this
        server must stop.
        """
        row, holder = replay.row, replay.holder
        if holder.error is not None and holder.status is not None:
            return Answer(holder.status, holder.error.encode())
        if row.response is not None and row.status != "failed":
            return Answer(HTTPStatus.OK, row.response.encode())
        self.refuse_forgotten(replay)
        try:
            async with asyncio.timeout(self.responses.bounds.response_seconds):
                entry = await self.resumer.last(row)
        except TimeoutError as error:
            raise too_late(row.response_id) from error
        except DrainedError as error:
            raise restarting(row.response_id, keyed=True) from error
        if entry is None:
            return _from_failed(row)
        answer = Answer.of(entry.status, await self.responses.payload(entry))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            await self._failed(replay.claim, holder, answer)
        self.responses.reader.note_finished(row.response_id)
        return answer

    def events(self, replay: Replay, read: LogRead) -> AsyncGenerator[bytes, None]:
        """Return the stream of a response that is not forgotten, from its start."""
        return self.resumer.events(replay.row, after=-1, read=read)

    def refuse_forgotten(self, replay: Replay) -> None:
        """Raise `ApiError` (409) for what is not stored, once the log may not have it any more."""
        if replay.is_kept:
            return
        now_ms = self.responses.clock.now().timestamp() * 1000
        age_seconds = (now_ms - (created_ms(replay.row.response_id) or 0)) / 1000
        if age_seconds > self.responses.bounds.response_seconds:
            raise forgotten()

    async def _failed(self, claim: KeyClaim, holder: KeyHolder, answer: Answer) -> None:
        """Note an error for further requests; one that says "come again" frees the key instead."""
        if answer.status in _COME_AGAIN:
            await self._quietly(self.keys.release(claim, holder.attempt))
            return
        error = answer.body.decode("utf-8", errors="replace")
        await self._quietly(self.keys.failed(claim, status=answer.status, error=error))

    async def _quietly(self, note: Any) -> None:
        """Write what others could find out by themselves, only later."""
        try:
            await note
        except DATABASE_OUTAGES as error:
            logger.warning("an idempotency key was not brought up to date: %r", error)


def _checked(name: bytes) -> str:
    if _NAME.fullmatch(name) is None:
        raise bad_key()
    return name.decode("ascii")


def _is_stored(document: Any) -> bool:
    return document.get("store") is not False


def _unread(claim: KeyClaim, holder: KeyHolder) -> StoredResponse:
    return StoredResponse(
        response_id=holder.response_id,
        project=claim.project,
        status="in_progress",
        background=False,
        stream=False,
        events_partition=holder.events_partition,
        previous_response_id=None,
        last_sequence_number=None,
        request=None,
        response=None,
    )


def _from_failed(row: StoredResponse) -> Answer:
    """Make the answer of a failed response anew, when nobody noted it and the log dropped it."""
    error = orjson.loads(row.response or "{}").get("error") or {}
    code = str(error.get("code") or "server_error")
    status = _CODES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    told = ApiError(status, str(error.get("message") or ""), kind="server_error", code=code)
    return Answer(status, orjson.dumps(told.body()))
