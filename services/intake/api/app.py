"""The whole HTTP application: create on the fast path, the rest on Starlette."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from services.intake.api.create import (
    ClientGoneError,
    CreateEndpoint,
    Receive,
    Scope,
    Send,
    send_body,
)
from services.intake.api.refusals import refusal_of
from services.intake.api.websocket import WebSocketEndpoint, refuse_handshake
from services.intake.errors import ApiError
from services.kit.ids import new_id
from services.kit.outages import OUTAGES

CREATE_PATH = "/v1/responses"


class IntakeApp:
    """The ASGI application of intake."""

    def __init__(
        self,
        create: CreateEndpoint,
        routes: list[BaseRoute],
        sockets: WebSocketEndpoint | None = None,
    ) -> None:
        self._create = create
        self._sockets = sockets
        self._rest = Starlette(
            routes=routes,
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                **dict.fromkeys(OUTAGES, _unexpected),
                ClientGoneError: _client_gone,
                Exception: _unexpected,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event; every answer has an `x-request-id`."""
        if scope["type"] == "http" and scope["path"] == CREATE_PATH and scope["method"] == "POST":
            answer = _Once(send)
            try:
                await self._create(scope, receive, answer)
            except Exception as error:  # noqa: BLE001 - the edge: whatever it was, it is told
                told = refusal_of(error)
                # An answer that has begun can only break off.
                if not answer.begun:
                    await _refuse(answer, told)
            return
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        await self._rest(scope, receive, _with_request_id(send))

    def served(self) -> list[tuple[str, str]]:
        """Return method and path of all that is answered here; a mount has the method `*`."""
        found = [("POST", CREATE_PATH)]
        if self._sockets is not None:
            found.append(("WEBSOCKET", CREATE_PATH))
        for route in self._rest.routes:
            if isinstance(route, Route):
                methods = (route.methods or {"GET"}) - {"HEAD"}
                found += [(method, route.path) for method in sorted(methods)]
            else:
                found.append(("*", str(getattr(route, "path", route))))
        return found

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._sockets is None or scope["path"] != CREATE_PATH:
            message = f"Invalid URL (WebSocket {scope['path']})"
            await refuse_handshake(send, ApiError(404, message, code="unknown_url"))
            return
        await self._sockets(scope, receive, send)


class _Once:
    """Sends, and knows whether an answer has begun."""

    __slots__ = ("_send", "begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Any) -> None:
        self.begun = True
        await self._send(message)


async def _refuse(send: Send, refusal: ApiError) -> None:
    extra = []
    if refusal.retry_after_seconds is not None:
        extra.append((b"retry-after", b"%d" % refusal.retry_after_seconds))
    body = orjson.dumps(refusal.body())
    await send_body(send, refusal.status, body, new_id("req").encode(), *extra)


def _with_request_id(send: Send) -> Send:
    async def wrapped(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", [])]
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", new_id("req").encode()))
            message = {**message, "headers": headers}
        await send(message)

    return wrapped


def _respond(error: ApiError) -> Response:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    response = JSONResponse(error.body(), status_code=error.status, headers=headers)
    response.raw_headers.extend(error.headers)
    return response


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"Invalid URL ({request.method} {request.url.path})"
        return _respond(ApiError(404, message, code="unknown_url"))
    code = "method_not_allowed" if error.status_code == 405 else None
    response = _respond(ApiError(error.status_code, error.detail, code=code))
    response.headers.update(error.headers or {})
    return response


async def _unexpected(_: Request, error: Exception) -> Response:
    return _respond(refusal_of(error))


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
