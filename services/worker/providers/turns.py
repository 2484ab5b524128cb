"""One model turn as events, the same for both dialects: what the composer puts together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import orjson

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.request import to_chat_request
from services.worker.chat.stream import ChatTurn
from services.worker.chat.turn import TurnEnd
from services.worker.domain import TERMINAL, Event, Item
from services.worker.errors import RequestRefusedError, UpstreamError
from services.worker.providers.client import UpstreamClient
from services.worker.sse import EventSplitter, frames, parse

_WHOLE_RESPONSE = frozenset({"response.created", "response.in_progress", "response.queued"})
_TERMINAL_EVENTS = frozenset(f"response.{status}" for status in TERMINAL)


class Turns(Protocol):
    """A provider's model turns.

    `turn` yields events of item level, with `output_index` counted from 0 in this turn and without
    a meaningful `sequence_number`, then one `TurnEnd`. Raises `UpstreamError`.
    """

    def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncIterator[Event | TurnEnd]:
        """Ask the model once with the request's parameters and this whole input."""
        ...


class ResponsesTurns:
    """Turns of a provider that speaks the Responses API."""

    def __init__(self, client: UpstreamClient, *, max_event_bytes: int) -> None:
        self._client = client
        self._max_event_bytes = max_event_bytes

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncIterator[Event | TurnEnd]:
        """See `Turns`."""
        body = orjson.dumps({**request, "input": items, "model": model, "stream": True})
        async for event in _events(self._client, "/responses", body, self._max_event_bytes):
            kind = event.get("type")
            if kind in _TERMINAL_EVENTS:
                yield _turn_end(event["response"])
                return
            if kind == "error":
                raise UpstreamError(str(event.get("message")), code=event.get("code"))
            if kind not in _WHOLE_RESPONSE:
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
    ) -> AsyncIterator[Event | TurnEnd]:
        """See `Turns`; raises `RequestRefusedError` for what Chat Completions cannot express."""
        try:
            body = orjson.dumps(to_chat_request(request, items, model=model))
        except UnsupportedParameterError as error:
            raise RequestRefusedError(
                str(error), param=error.param, code="unsupported_parameter"
            ) from error
        turn = ChatTurn(new_id=self._new_id, request=request)
        chunks = _events(self._client, "/chat/completions", body, self._max_event_bytes)
        async for chunk in chunks:
            for event in turn.feed(chunk):
                yield event
        events, end = turn.finish()
        for event in events:
            yield event
        yield end


async def _events(
    client: UpstreamClient, path: str, body: bytes, max_event_bytes: int
) -> AsyncIterator[dict[str, Any]]:
    splitter = EventSplitter(limit_bytes=max_event_bytes)
    async with client.post(path, body) as answer:
        if "text/event-stream" not in answer.headers.get("content-type", ""):
            raise UpstreamError("the provider did not answer with an event stream")
        async for chunk in answer.content.iter_any():
            for frame in frames(splitter.feed(chunk)):
                event = parse(frame)
                if event is not None:
                    yield event


def _turn_end(response: dict[str, Any]) -> TurnEnd:
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
