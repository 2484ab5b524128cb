"""Answers to requests whose `Idempotency-Key` has a response already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from http import HTTPStatus

from starlette.responses import Response

from services.intake.accepted import Accepted, Answer
from services.intake.admission.keys import ApiKey
from services.intake.api.create import DONE, RESUME
from services.intake.api.event_stream import EventStream
from services.intake.errors import overloaded
from services.intake.idempotency.service import Idempotency, Replay
from services.intake.kept import KeptResponses
from services.intake.streaming.followers import DrainedError, SlowReaderError
from services.intake.streaming.log_reads import LogRead

_REPLAYED = {"idempotent-replayed": "true"}


class KeyedCreate:
    """Gives the first request with a key to the fast path and answers any further one."""

    def __init__(self, idempotency: Idempotency, kept: KeptResponses, *, most: int) -> None:
        self._idempotency = idempotency
        self._kept = kept
        self._most = most
        self._open = 0

    async def accept(self, name: bytes, body: bytes, key: ApiKey) -> Accepted | Response:
        """Accept the first request with a key; return the answer to any further one.

        A further JSON request waits here for the end of its response. Raises `ApiError`, a 429
        when as many wait as may be open: no limit of the key's holds them up.
        """
        with self._place():
            return await self._accept(name, body, key)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= self._most:
            raise overloaded()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _accept(self, name: bytes, body: bytes, key: ApiKey) -> Accepted | Response:
        accepted = await self._idempotency.accept(name, body, key)
        if isinstance(accepted, Accepted):
            return accepted
        if accepted.stream:
            return self._stream(accepted)
        if accepted.background:
            state = await self._kept.retrieve(accepted.row.response_id, key)
            return _json(Answer(HTTPStatus.OK, state))
        return _json(await self._idempotency.answer(accepted))

    def _stream(self, replay: Replay) -> Response:
        self._idempotency.refuse_forgotten(replay)
        response_id = replay.row.response_id
        note_finished = self._kept.reader.note_finished

        async def blocks(read: LogRead) -> AsyncIterator[bytes]:
            # Whether there is a place was asked when it was accepted.
            self._open += 1
            try:
                async with aclosing(self._idempotency.events(replay, read)) as events:
                    async for block in events:
                        yield block
                note_finished(response_id)
                yield DONE
            except SlowReaderError:
                return
            except DrainedError:
                yield RESUME
            finally:
                self._open -= 1

        return EventStream(blocks, self._idempotency.resumer.reads.begin, _REPLAYED)


def _json(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, _REPLAYED, media_type="application/json")
    response.raw_headers.extend(answer.headers)
    return response
