"""How an MCP server is reached: a child process, streamable HTTP or SSE, as the SDK's streams."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TextIO

import httpx2
from mcp.client._transport import ReadStream, TransportStreams
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from services.mcp_broker.servers_file import ServerConfig

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""One SSE event is one message: a tool result with its images."""

_CHUNK_BYTES = 4096
_SPARE_CONNECTIONS = 8  # for notifications, discovery and cancellations
_LINE_BYTES = 2000
_IDLE_STREAM_SECONDS = 3600.0


@asynccontextmanager
async def open_transport(
    config: ServerConfig, *, on_end: Callable[[], None]
) -> AsyncGenerator[TransportStreams, None]:
    """Connect and yield the streams of `config`'s server.

    `on_end` is called when the server ends the connection by itself; over streamable HTTP there is
    no such moment, only requests that fail. Enter and leave it in one task. Raises what the
    transport raises: `OSError` for a command that can't be run, `httpx2.HTTPError`, groups of them.
    """
    if config.transport == "stdio":
        async with _child(config, on_end) as streams:
            yield streams
        return
    url, headers = str(config.url), dict(config.headers)
    if config.transport == "sse":
        connect = config.connect_timeout_seconds
        async with sse_client(url, headers, connect, _IDLE_STREAM_SECONDS) as (read, write):
            yield _Watched(read, on_end), write
        return
    # Every request has a bound of its own, and a stream for notifications may stay silent for long.
    timeout = httpx2.Timeout(config.connect_timeout_seconds, read=_IDLE_STREAM_SECONDS)
    limits = httpx2.Limits(max_connections=config.max_concurrency + _SPARE_CONNECTIONS)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as http,
        streamable_http_client(
            url, http_client=http, max_sse_event_size=MAX_EVENT_BYTES
        ) as streams,
    ):
        yield streams


@asynccontextmanager
async def _child(
    config: ServerConfig, on_end: Callable[[], None]
) -> AsyncGenerator[TransportStreams, None]:
    parameters = StdioServerParameters(
        command=str(config.command), args=list(config.args), env=dict(config.env)
    )
    async with _log_of_child(config) as errors, stdio_client(parameters, errors) as (read, write):
        # The child has its own copy; with ours open its end would never be seen.
        errors.close()
        yield _Watched(read, on_end), write


@asynccontextmanager
async def _log_of_child(config: ServerConfig) -> AsyncGenerator[TextIO, None]:
    """Yield a file for a child's standard error, whose lines go to the log of the broker."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    task = asyncio.create_task(_log_lines(config, reader), name=f"stderr of {config.label}")
    try:
        with os.fdopen(writing, "w", encoding="utf-8") as errors:
            yield errors
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.close()


async def _log_lines(config: ServerConfig, reader: asyncio.StreamReader) -> None:
    rest = b""
    while chunk := await reader.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            if text := line[:_LINE_BYTES].decode(errors="replace").rstrip():
                logger.info("%s: %s", config.label, config.redact(text))


class _Watched:
    """A read stream that tells when it ends."""

    def __init__(
        self, stream: ReadStream[SessionMessage | Exception], on_end: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._on_end = on_end

    @property
    def last_context(self) -> Any:
        """The sender's context variables, which the SDK asks some streams for."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        return await self._stream.receive()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)
