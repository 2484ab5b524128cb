"""The whole HTTP application: create on the fast path, the rest on Starlette."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from services.intake.api.create import (
    ClientGoneError,
    CreateEndpoint,
    Receive,
    Scope,
    Send,
    send_body,
)
from services.intake.errors import ApiError, unavailable
from services.kit.ids import new_id

logger = logging.getLogger(__name__)
CREATE_PATH = "/v1/responses"


class IntakeApp:
    """The ASGI application of intake."""

    def __init__(self, create: CreateEndpoint, routes: list[BaseRoute]) -> None:
        self._create = create
        self._rest = Starlette(
            routes=routes,
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_error,
                DBAPIError: _outage,
                OSError: _outage,
                TimeoutError: _outage,
                ClientGoneError: _client_gone,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event; every answer has an `x-request-id`."""
        if scope["type"] == "http" and scope["path"] == CREATE_PATH and scope["method"] == "POST":
            try:
                await self._create(scope, receive, send)
            except (DBAPIError, OSError, TimeoutError) as error:
                logger.warning("a request failed for an outage: %r", error)
                refusal = unavailable("A part of this server is not available, try again.")
                body = orjson.dumps(refusal.body())
                await send_body(send, 503, body, new_id("req").encode(), (b"retry-after", b"2"))
            return
        await self._rest(scope, receive, _with_request_id(send))


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
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"Invalid URL ({request.method} {request.url.path})"
        return _respond(ApiError(404, message, code="unknown_url"))
    response = _respond(ApiError(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _outage(_: Request, error: Exception) -> Response:
    logger.warning("a request failed for an outage: %r", error)
    return _respond(unavailable("A part of this server is not available, try again."))


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
