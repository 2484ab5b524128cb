"""Writing an answer to the socket, with the faults that its plan asks for."""

import asyncio
import socket
import struct
from collections.abc import Iterable

import orjson
from aiohttp import web

from tests.upstream.answers import Json
from tests.upstream.control import Gates
from tests.upstream.faults import Plan
from tests.upstream.ledger import Exchange, Ledger
from tests.upstream.sse import GARBAGE

_MAX_SEVERED_S = 60.0
_HTML = "<html><body>Welcome to the proxy.</body></html>"
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
}


class Delivery:
    """Delivers one answer for one exchange."""

    def __init__(
        self, request: web.Request, exchange: Exchange, plan: Plan, ledger: Ledger, gates: Gates
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._plan = plan
        self._ledger = ledger
        self._gates = gates

    @property
    def gate(self) -> str | None:
        """The key of the gate that holds the answer after some events, None without one."""
        return self._plan.hold_key if self._plan.hold_after else None

    async def start(self) -> None:
        """Wait, reset the connection or raise RefusalError, as planned before the first byte."""
        plan = self._plan
        if plan.hold_after == 0:
            await self._gates.passed(plan.hold_key)
        if plan.hang_s:
            await asyncio.sleep(plan.hang_s)
        if plan.reset:
            await self._sever(hard=True)
        if plan.refusal is not None:
            raise plan.refusal

    async def document(self, body: Json) -> web.StreamResponse:
        """Answer with one JSON document."""
        data = orjson.dumps(body)
        if self._plan.hold_after:
            await self._gates.passed(self._plan.hold_key)
        if self._plan.cut_after is not None or self._plan.end_after is not None:
            return await self._cut_document(data)
        match self._plan.document:
            case "malformed":
                data = b'{"id": "broken", "output": [}'
            case "truncated":
                data = data[: len(data) // 2]
            case "empty":
                data = b""
            case "html":
                return web.Response(text=_HTML, content_type="text/html")
            case "whole":
                pass
        return web.Response(body=data, content_type="application/json")

    async def stream(self, events: Iterable[Json]) -> web.StreamResponse:
        """Answer with server-sent events, one write each unless the wire splits them."""
        if self._plan.document == "html":
            return web.Response(text=_HTML, content_type="text/html")
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        self._ledger.stream(self._exchange, 1)
        try:
            await response.prepare(self._request)
            if self._plan.document != "empty" and await self._events(response, events):
                await self._write(response, self._plan.wire.end())
            await response.write_eof()
        finally:
            self._ledger.stream(self._exchange, -1)
        return response

    async def _events(self, response: web.StreamResponse, events: Iterable[Json]) -> bool:
        """Write the events; False when the plan ends the stream before its time."""
        plan = self._plan
        for sent, event in enumerate(events):
            if sent == plan.cut_after:
                await self._sever(hard=plan.cut_hard)
            if sent == plan.end_after:
                return False
            if sent == plan.truncate_after:
                data = plan.wire.event(event)
                await self._write(response, data[: len(data) // 2])
                return False
            await self._between(response, sent)
            await self._write(response, plan.wire.event(event, first=sent == 0))
            self._ledger.sent(self._exchange)
        return True

    async def _between(self, response: web.StreamResponse, sent: int) -> None:
        plan = self._plan
        if sent and sent == plan.hold_after:
            await self._gates.passed(plan.hold_key)
        if sent == plan.stall_after:
            await asyncio.sleep(plan.stall_s)
        if sent and plan.interval_s:
            await asyncio.sleep(plan.interval_s)
        if sent == plan.broken_json_after:
            await self._write(response, plan.wire.broken())
        if sent == plan.garbage_after:
            await self._write(response, GARBAGE)

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        pieces = self._plan.wire.pieces(data)
        for piece in pieces:
            await response.write(piece)
            if len(pieces) > 1:
                # Let the bytes leave on their own before the next ones follow.
                await asyncio.sleep(0)

    async def _cut_document(self, data: bytes) -> web.StreamResponse:
        """Promise the whole document, send half of it and close the connection."""
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(data)
        await response.prepare(self._request)
        await response.write(data[: len(data) // 2])
        await self._sever(hard=self._plan.cut_hard)
        return response

    async def _sever(self, *, hard: bool) -> None:
        """Close the connection as a crash would (`hard` with RST, else FIN); never returns.

        The server cancels the handler once the connection is gone, which ends the wait.
        """
        self._exchange.severed = True
        transport = self._request.transport
        if transport is not None and hard:
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif transport is not None:
            transport.close()
        await asyncio.sleep(_MAX_SEVERED_S)
