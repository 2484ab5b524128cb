"""One model turn as events, the same for both dialects: what the composer puts together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

import orjson

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.obfuscation import pad, wants_obfuscation
from services.worker.chat.request import to_chat_request
from services.worker.chat.stream import ChatTurn
from services.worker.chat.truncation import is_too_long, shorter
from services.worker.chat.turn import TurnEnd
from services.worker.domain import OPENING_EVENTS, TERMINAL_EVENTS, Event, Item
from services.worker.errors import MALFORMED, RequestRefusedError, UpstreamError
from services.worker.providers.client import UpstreamClient
from services.worker.sse import EventSplitter, frames, parse


class Turns(Protocol):
    """A provider's model turns.

    `turn` yields events of item level, with `output_index` counted from 0 in this turn and without
    a meaningful `sequence_number`, then one `TurnEnd`. Raises `UpstreamError`.
    """

    def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        """Ask the model once with the request's parameters and this whole input."""
        ...


class ResponsesTurns:
    """Turns of a provider that speaks the Responses API."""

    def __init__(self, client: UpstreamClient, *, max_event_bytes: int) -> None:
        self._client = client
        self._max_event_bytes = max_event_bytes

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        """See `Turns`."""
        body = orjson.dumps({**request, "input": items, "model": model, "stream": True})
        events = _events(self._client, "/responses", body, self._max_event_bytes)
        async with aclosing(events):
            async for event in events:
                kind = str(event.get("type"))
                if kind in TERMINAL_EVENTS:
                    yield _turn_end(event.get("response"))
                    return
                if kind == "error":
                    raise UpstreamError(str(event.get("message")), code=_code(event.get("code")))
                if kind not in OPENING_EVENTS:
                    yield event
        raise UpstreamError("the provider's stream ended before the response did")


class ChatTurns:
    """Turns of a provider that speaks Chat Completions."""

    def __init__(
        self, client: UpstreamClient, *, max_event_bytes: int, new_id: Callable[[str], str]
    ) -> None:
        self._client = client
        self._max_event_bytes = max_event_bytes
        self._new_id = new_id

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        """See `Turns`; raises `RequestRefusedError` for what Chat Completions cannot express."""
        try:
            field = self._client.config.reasoning_field
            asked = to_chat_request(
                request, items, model=model, reasoning_field=None if field == "none" else field
            )
        except UnsupportedParameterError as error:
            raise RequestRefusedError(
                str(error), param=error.param, code="unsupported_parameter"
            ) from error
        except MALFORMED as error:
            raise RequestRefusedError(
                f"The request has a part of another shape than expected: {error!r}."
            ) from error
        turn = ChatTurn(new_id=self._new_id, request=request)
        chunks = self._fitting(asked) if request.get("truncation") == "auto" else self._ask(asked)
        obfuscates = wants_obfuscation(request)
        async with aclosing(chunks):
            async for chunk in chunks:
                try:
                    events = turn.feed(chunk)
                except MALFORMED as error:
                    raise UpstreamError("the provider sent a chunk of another shape") from error
                for event in events:
                    if obfuscates:
                        pad(event)
                    yield event
        try:
            events, end = turn.finish()
        except MALFORMED as error:
            raise UpstreamError("the provider's chunks do not fit together") from error
        for event in events:
            if obfuscates:
                pad(event)
            yield event
        yield end

    def _ask(self, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        body = orjson.dumps(asked)
        return _events(self._client, "/chat/completions", body, self._max_event_bytes)

    async def _fitting(self, asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Ask again with half of the conversation for as long as it does not fit the model."""
        while True:
            chunks = self._ask(asked)
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk
            except UpstreamError as error:
                rest = shorter(asked["messages"]) if is_too_long(error) else None
                if rest is None:
                    raise
                asked = {**asked, "messages": rest}
            else:
                return


async def _events(
    client: UpstreamClient, path: str, body: bytes, max_event_bytes: int
) -> AsyncGenerator[dict[str, Any], None]:
    splitter = EventSplitter(limit_bytes=max_event_bytes)
    async with client.post(path, body) as answer:
        if not answer.streams:
            raise UpstreamError("the provider did not answer with an event stream")
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                for frame in frames(splitter.feed(chunk)):
                    event = parse(frame)
                    if event is not None:
                        yield event
        for frame in frames(splitter.finish()):
            event = parse(frame)
            if event is not None:
                yield event


def _code(code: object) -> str | None:
    return None if code is None else str(code)


def _turn_end(response: object) -> TurnEnd:
    if not isinstance(response, dict):
        raise UpstreamError("the provider's last event has no response")
    status = response.get("status")
    return TurnEnd(
        status=status if status in ("completed", "incomplete") else "failed",
        output=response.get("output") or [],
        usage=response.get("usage"),
        incomplete_details=response.get("incomplete_details"),
        error=response.get("error"),
        model=response.get("model"),
        service_tier=response.get("service_tier"),
    )
