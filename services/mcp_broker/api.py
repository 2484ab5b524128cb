"""The HTTP edge: which MCP servers there are, for callers that intake vouches for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from services.kit.http import NotInternalError, error_response, internal_caller
from services.mcp_broker.clients.connection import ServerState


def api_routes(
    states: Callable[[], Awaitable[Iterable[ServerState]]], *, token: str
) -> list[BaseRoute]:
    """Return `GET /v1/mcp/servers`; without the internal token it answers 401."""

    async def list_servers(request: Request) -> Response:
        try:
            internal_caller(request, token=token)
        except NotInternalError:
            return error_response(401, "This route is for services only.", code="invalid_token")
        found = await states()
        return JSONResponse({"object": "list", "data": [_server(state) for state in found]})

    return [Route("/v1/mcp/servers", list_servers, methods=["GET"])]


def _server(state: ServerState) -> dict[str, Any]:
    return {
        "object": "mcp.server",
        "server_label": state.label,
        "transport": state.transport,
        "status": state.status,
        "error": state.error,
        "tools": [tool.model_dump() for tool in state.tools],
    }
