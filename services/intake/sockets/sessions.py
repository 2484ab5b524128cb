"""The turns of a WebSocket session: what each is given and tells, what is kept for the next."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson

from contracts.packs import Flag
from services.intake.accepted import Accepted
from services.intake.admission.keys import ApiKey
from services.intake.domain import queued_response
from services.intake.errors import ApiError, history_too_large, invalid, model_not_found
from services.intake.kept import OwnView
from services.intake.request import parse_create
from services.intake.service import Responses
from services.intake.sockets.frames import addressed, messages, stream_error
from services.intake.sockets.lanes import NO_CONTEXT, Context, Contexts, Create, Lane, prepared_by
from services.kit.ids import new_id

_CONTINUABLE = frozenset({"completed", "incomplete"})
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


class Sessions:
    """Runs the turns of all connections. What is kept for one is never used by another."""

    def __init__(self, responses: Responses, store: OwnView, contexts: Contexts) -> None:
        self._responses = responses
        self._store = store
        self._contexts = contexts

    async def turn(
        self, session: str, lane: Lane, create: Create, key: ApiKey
    ) -> AsyncGenerator[list[str], None]:
        """Yield the texts of a response's events as they come, to the last.

        Raises `ApiError` when there is no response, or none that ended; the context that the turn
        was to follow is forgotten then, unless another lane has it. Raises `SlowReaderError` and
        `DrainedError`. A caller that stops early loses nothing of what is stored.
        """
        ended = False
        try:
            context = await self._context(session, create, key)
            if create.generate:
                told = self._generate(context, create, key)
            else:
                told = self._warm_up(context, create, key)
            async with aclosing(told) as parts:
                async for texts, result in parts:
                    if result is not None:
                        ended = result.response_id != ""
                        self._keep(session, lane, create, result)
                    yield [addressed(text, create.stream_id) for text in texts]
        except ApiError:
            self._failed(session, lane, create)
            raise
        if not ended:
            self._failed(session, lane, create)

    def end(self, session: str, lanes: list[Lane]) -> None:
        """Forget what was kept for a connection."""
        for lane in lanes:
            self._contexts.forget(session, lane)

    def _failed(self, session: str, lane: Lane, create: Create) -> None:
        if lane.latest is not None and lane.latest == create.previous_response_id:
            self._contexts.forget(session, lane)

    def _keep(self, session: str, lane: Lane, create: Create, context: Context) -> None:
        # What a conversation holds is not ours to remember: it changes without this connection.
        if context.response_id and create.body.get("conversation") is None:
            self._contexts.keep(session, lane, context)

    async def _context(self, session: str, create: Create, key: ApiKey) -> Context:
        previous = create.previous_response_id
        if previous is None:
            return NO_CONTEXT
        kept = self._contexts.find(session, previous)
        if kept is None:
            return await self._responses.context(previous, key)
        if kept.stored_ids and await self._store.any_deleted(kept.stored_ids):
            # What is left of the chain is known to the database; of what is kept here, to nobody.
            return await self._responses.context(previous, key)
        return kept

    async def _generate(
        self, context: Context, create: Create, key: ApiKey
    ) -> AsyncGenerator[tuple[list[bytes], Context | None], None]:
        body, history = create.body_after(context)
        follows = create.previous_response_id is not None
        if follows and len(history) > self._responses.bounds.max_history_bytes:
            raise history_too_large("previous_response_id")
        accepted = await self._responses.accept(
            orjson.dumps(body), key, history=history if follows else None
        )
        try:
            async for texts, last in self._told(accepted):
                result = None
                if last is not None:
                    result = NO_CONTEXT
                    response = last.get("response") or {}
                    if response.get("status") in _CONTINUABLE:
                        result = context.after(create.body, response, stored=create.stored)
                yield texts, result
        finally:
            accepted.close()

    async def _told(
        self, accepted: Accepted
    ) -> AsyncGenerator[tuple[list[bytes], dict[str, Any] | None], None]:
        """Yield the events of each delivery, with the last event when it has come, parsed."""
        while True:
            texts: list[bytes] = []
            for entry in await accepted.follower.take():
                payload = entry.payload
                if entry.flags & Flag.CLAIM:
                    payload = await self._responses.payload(entry)
                for message in messages(payload):
                    error = stream_error(message)
                    if error is not None:
                        # It ends the turn for the client: nothing may follow that it would take
                        # for the next one.
                        yield [*texts, orjson.dumps(error)], error
                        return
                    texts.append(message)
                if entry.flags & Flag.LAST:
                    self._responses.reader.note_finished(accepted.response_id)
                    yield texts, _last_event(texts)
                    return
            if texts:
                yield texts, None

    async def _warm_up(
        self, context: Context, create: Create, key: ApiKey
    ) -> AsyncGenerator[tuple[list[bytes], Context | None], None]:
        """Tell of a response without output that no provider was asked for and nobody stores."""
        if create.body.get("conversation") is not None:
            raise invalid(
                "A warm-up can't be part of a conversation.",
                param="conversation",
                code="unsupported_value",
            )
        # What is prepared may be instructions and tools alone.
        body = {"input": [], **create.body_after(context)[0]}
        request = parse_create(body)
        if not self._responses.providers.serving(request.model) or not key.allows(request.model):
            raise model_not_found(request.model)
        now = int(self._responses.clock.now().timestamp())
        response = queued_response(new_id("resp"), body, now) | {"status": "in_progress"}
        ended = response | {"status": "completed", "completed_at": now, "usage": _NO_USAGE}
        after = context.after(create.body, ended, stored=False)
        if len(after.items) > self._responses.bounds.max_history_bytes:
            raise history_too_large("input")
        prepared = {**context.prepared, **prepared_by(create.body)}
        size_bytes = len(orjson.dumps(prepared))
        after = replace(after, prepared=prepared, prepared_bytes=size_bytes)
        events = (
            ("response.created", response),
            ("response.in_progress", response),
            ("response.completed", ended),
        )
        yield (
            [
                orjson.dumps({"type": kind, "sequence_number": number, "response": told})
                for number, (kind, told) in enumerate(events)
            ],
            after,
        )


def _last_event(texts: list[bytes]) -> dict[str, Any]:
    """Return the terminal event; raises `ApiError` (500) when the stream ended without one."""
    event = orjson.loads(texts[-1]) if texts else None
    if not isinstance(event, dict) or not isinstance(event.get("response"), dict):
        raise ApiError(
            500, "The response ended without a result.", kind="server_error", code="server_error"
        )
    return event
