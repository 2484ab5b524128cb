"""The HTTP edge all services share: health, metrics, internal authentication, the server itself."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from services.kit.health import Health
from services.kit.stalls import http_protocol

_KEEP_ALIVE_SECONDS = 75
_STALL_SECONDS = 60.0


def health_routes(health: Health) -> list[BaseRoute]:
    """Return `/healthz`, `/readyz` and `/metrics`."""

    async def healthz(_: Request) -> Response:
        return _report(await health.alive())

    async def readyz(_: Request) -> Response:
        return _report(await health.ready())

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def _report(checks: dict[str, str]) -> JSONResponse:
    fine = all(result == "ok" for result in checks.values())
    return JSONResponse(
        {"status": "ok" if fine else "unavailable", "checks": checks},
        status_code=200 if fine else 503,
    )


@dataclass(frozen=True)
class Caller:
    """On whose behalf intake forwards a request."""

    key_id: str
    project: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether the caller may see all projects."""
        return "admin" in self.scopes


class NotInternalError(Exception):
    """The request does not come from a service of this installation."""


def internal_caller(request: Request, *, token: str) -> Caller:
    """Return who intake vouches for; raises `NotInternalError` without the shared secret."""
    presented = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token or not hmac.compare_digest(presented.encode(), token.encode()):
        raise NotInternalError
    return Caller(
        key_id=request.headers.get("x-antiphon-key-id", ""),
        project=request.headers.get("x-antiphon-project", ""),
        scopes=frozenset(request.headers.get("x-antiphon-scopes", "").split()),
    )


def error_response(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> JSONResponse:
    """Return an error in the shape of the OpenAI API."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status)


class WebSockets(Protocol):
    """How a server speaks WebSocket; a Protocol since only one service has the library."""

    @property
    def max_message_bytes(self) -> int:
        """The largest message of a client; above it the socket is closed with 1009."""
        ...

    @property
    def ping_seconds(self) -> float:
        """The pause between pings, and how long each may go unanswered."""
        ...

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the protocol class for uvicorn."""
        ...


class HttpServer:
    """Uvicorn inside the service's own event loop; streams get a bounded time to end at a stop.

    A client that takes no byte of its answer for `stall_seconds`, or sends none of its body, is cut
    off. `sockets` lets clients change to WebSockets; an application must know
    `services.kit.websockets.DRAIN` then.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        drain_seconds: float,
        stall_seconds: float = _STALL_SECONDS,
        sockets: WebSockets | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=http_protocol(stall_seconds=stall_seconds),
            ws="none" if sockets is None else sockets.protocol(),
            ws_max_size=0 if sockets is None else sockets.max_message_bytes,
            ws_ping_interval=None if sockets is None else sockets.ping_seconds,
            ws_ping_timeout=None if sockets is None else sockets.ping_seconds,
            # It would cost more than the event it packs, for each delta.
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(drain_seconds),
            backlog=4096,
        )
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._config = config
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is bound, also when 0 was asked for."""
        if self._socket is None:
            raise RuntimeError("the server is not started")
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Bind and serve; raises `OSError` that names the address when the port is taken."""
        family = socket.AF_INET6 if ":" in self._config.host else socket.AF_INET
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._config.host, self._config.port))
            # From here on clients can connect: they wait for uvicorn, which needs a moment.
            bound.listen(self._config.backlog)
        except OSError as error:
            bound.close()
            address = f"{self._config.host}:{self._config.port}"
            raise OSError(error.errno, f"can't listen on {address}: {error.strerror}") from error
        self._socket = bound
        self._task = asyncio.create_task(self._server.serve([bound]), name="http")

    async def stop(self) -> None:
        """Stop accepting, let open requests end within the drain time, close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        # Signals belong to the runtime.
        return contextlib.nullcontext()
