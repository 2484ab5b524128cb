"""One long-lived session with one MCP server: kept by one task, used by many callers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    REQUEST_TIMEOUT,
    CallToolResult,
    Implementation,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from contracts.tools import McpTool, ToolCallError
from services.kit.clock import Clock
from services.kit.retry import Backoff
from services.kit.tasks import TaskSet
from services.mcp_broker.clients.discovery import discover
from services.mcp_broker.clients.transports import open_transport
from services.mcp_broker.errors import ConnectionLostError, ToolCallFailedError
from services.mcp_broker.servers_file import ServerConfig

logger = logging.getLogger(__name__)

_CLIENT = Implementation(name="antiphon", version="0.1.0")
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=15.0)
_MAX_FAILURES = 20  # beyond it the pause no longer grows
_STABLE_SECONDS = 10.0
# Beyond the time to connect: for the first list of tools, and the pause after a loss.
_GRACE_SECONDS = 5.0
_CALM_SECONDS = 0.1
_ERROR_CHARACTERS = 300

_ERRORS: dict[int, ToolCallError] = {
    CONNECTION_CLOSED: "unavailable",
    REQUEST_TIMEOUT: "timeout",
    INVALID_PARAMS: "invalid_arguments",
    METHOD_NOT_FOUND: "unknown_tool",
}
_SUSPICIOUS = frozenset({CONNECTION_CLOSED, REQUEST_TIMEOUT, INVALID_REQUEST, INTERNAL_ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """A server as the broker sees it now; `tools` are those that may be called."""

    label: str
    transport: Literal["stdio", "streamable_http", "sse"]
    status: Literal["ready", "unavailable"]
    tools: tuple[McpTool, ...] = ()
    error: str | None = None


class ServerConnection:
    """Keeps a server connected, knows its tools and calls them.

    `on_change` is called, from the event loop, whenever `state` is another than before.
    """

    def __init__(
        self, config: ServerConfig, *, clock: Clock, on_change: Callable[[ServerState], None]
    ) -> None:
        self.config = config
        self._clock = clock
        self._on_change = on_change
        self._client: Client | None = None
        self._ended = False
        self._wake = asyncio.Event()
        self._decided = asyncio.Event()
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._waiting = 0
        self._tasks = TaskSet()
        self.state = self._unavailable("not connected yet")

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._tasks.spawn(self._keep(), name=f"mcp server {self.config.label}")

    async def stop(self) -> None:
        """Disconnect; a child process is gone when this returns."""
        await self._tasks.stop()
        self._decided.set()  # there will be no further attempt to wait for

    def alive(self) -> bool:
        """Whether the session is looked after, be it connected or not."""
        return not self._tasks.failed.is_set()

    def tool(self, name: str) -> McpTool | None:
        """Return the tool of that name if it exists and may be called."""
        return next((tool for tool in self.state.tools if tool.name == name), None)

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool; raises `ToolCallFailedError`.

        The caller bounds the time; when it cancels, the server is told. A call that was on its way
        when the connection broke is not repeated: nobody knows whether it had an effect.
        """
        if self._waiting >= self.config.max_waiting + self.config.max_concurrency:
            raise ToolCallFailedError("unavailable", "too many calls wait for this server")
        self._waiting += 1
        try:
            client = await self._connected()
            if self.tool(tool) is None:
                raise ToolCallFailedError("unknown_tool", f"there is no tool {tool!r} to call")
            async with self._slots:
                return await self._call(client, tool, arguments)
        finally:
            self._waiting -= 1

    async def decided(self) -> None:
        """Return when the first attempt to connect after a start or a loss has ended.

        All callers wait for the same attempt, no longer than it may take; cancel it as you like.
        """
        # A timer for each call would be one too many where there is nothing to wait for.
        if self._decided.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.connect_timeout_seconds + _GRACE_SECONDS):
                await self._decided.wait()

    async def _connected(self) -> Client:
        if self._client is None:
            # That attempt most often succeeds, after a restart of the broker above all.
            await self.decided()
        if self._client is None:
            raise ToolCallFailedError("unavailable", self.state.error or "not connected")
        return self._client

    async def _call(self, client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        seconds = self.config.call_timeout_seconds
        try:
            return await client.call_tool(tool, arguments, read_timeout_seconds=seconds)
        except MCPError as error:
            if error.code in _SUSPICIOUS:
                self._wake.set()  # a session that broke is noticed by asking it for its tools
            kind = _ERRORS.get(error.code, "tool_error")
            raise ToolCallFailedError(kind, self._text(error)) from error
        except (RuntimeError, ValidationError) as error:
            # The SDK's words for a result that does not match the tool's own schema.
            raise ToolCallFailedError("tool_error", self._text(error)) from error

    async def _keep(self) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            reason = "the connection ended"
            try:
                async with self._session() as client:
                    await self._attend(client)
            except TimeoutError:
                reason = f"no answer within {self.config.connect_timeout_seconds:g} s"
            except Exception as error:  # noqa: BLE001 - whatever a server does, it is only absent
                reason = self._text(error)
            lasted = self._clock.monotonic() - started
            was_ready, self._client = self._client is not None, None
            failures = 1 if was_ready and lasted > _STABLE_SECONDS else failures + 1
            if was_ready and failures == 1:
                self._decided.clear()
            else:
                self._decided.set()
            self._become(self._unavailable(reason))
            await asyncio.sleep(_BACKOFF.pause(min(failures, _MAX_FAILURES)))

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[Client, None]:
        """Connect within the time allowed and yield the session, then without a bound."""
        self._ended = False
        self._wake.clear()
        transport = open_transport(self.config, on_end=self._note_end)
        async with asyncio.timeout(self.config.connect_timeout_seconds) as limit:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(
                    Client(
                        transport,
                        cache=None,
                        client_info=_CLIENT,
                        read_timeout_seconds=self.config.connect_timeout_seconds,
                        message_handler=self._on_message,
                    )
                )
                await self._follow_changes(client, stack)
                limit.reschedule(None)
                yield client

    async def _follow_changes(self, client: Client, stack: AsyncExitStack) -> None:
        # Since 2026-07-28 a server notifies only those who asked; the events reach `_on_message`.
        tools = client.server_capabilities.tools
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools and tools.list_changed:
            try:
                await stack.enter_async_context(client.listen(tools_list_changed=True))
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                logger.info("%s tells no changes: %s", self.config.label, self._text(error))

    async def _attend(self, client: Client) -> None:
        """Discover the tools again on every change, and now and then to see that it still lives."""
        while True:
            tools = await discover(client, self.config)
            self._client = client
            self._decided.set()
            self._become(
                ServerState(
                    label=self.config.label,
                    transport=self.config.transport,
                    status="ready",
                    tools=tools,
                )
            )
            try:
                async with asyncio.timeout(self.config.health_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
            if not self._ended:
                await asyncio.sleep(_CALM_SECONDS)  # changes come in bursts
            self._wake.clear()
            if self._ended:
                raise ConnectionLostError("the server closed the connection")

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._wake.set()

    def _note_end(self) -> None:
        self._ended = True
        self._wake.set()

    def _become(self, state: ServerState) -> None:
        if state == self.state:
            return
        self.state = state
        if state.status == "ready":
            logger.info("MCP server %s offers %d tools", state.label, len(state.tools))
        else:
            logger.warning("MCP server %s is unavailable: %s", state.label, state.error)
        self._on_change(state)

    def _unavailable(self, reason: str) -> ServerState:
        return ServerState(
            label=self.config.label,
            transport=self.config.transport,
            status="unavailable",
            error=reason,
        )

    def _text(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        said = str(error).strip()
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        return self.config.redact(text)[:_ERROR_CHARACTERS]
