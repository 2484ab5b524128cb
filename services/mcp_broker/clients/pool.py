"""All configured MCP servers, by label."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from services.kit.clock import Clock
from services.mcp_broker.clients.connection import ServerConnection, ServerState
from services.mcp_broker.domain import Limits, Outcome, render
from services.mcp_broker.errors import ToolCallFailedError
from services.mcp_broker.servers_file import ServerConfig


class ServerPool:
    """The connections of this process; calls go through it."""

    def __init__(
        self,
        configs: Sequence[ServerConfig],
        *,
        clock: Clock,
        limits: Limits,
        on_change: Callable[[ServerState], None],
    ) -> None:
        self._limits = limits
        self._connections = {
            config.label: ServerConnection(config, clock=clock, on_change=on_change)
            for config in configs
        }

    async def start(self) -> None:
        """Begin to connect to every server; returns at once, whether they answer or not."""
        for connection in self._connections.values():
            await connection.start()

    async def stop(self) -> None:
        """Disconnect from all servers at the same time."""
        await asyncio.gather(*(connection.stop() for connection in self._connections.values()))

    async def alive(self) -> bool:
        """Whether every session is looked after, be it connected or not."""
        return all(connection.alive() for connection in self._connections.values())

    def states(self) -> list[ServerState]:
        """Return every server as it is now, in the order of the file."""
        return [connection.state for connection in self._connections.values()]

    async def listing(self, *, seconds: float) -> list[ServerState]:
        """Return the states once every first attempt to connect has ended, or that time is over.

        Else a listing just after a start would call away what is only not connected yet.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for connection in self._connections.values():
                    await connection.decided()
        return self.states()

    def knows(self, label: str, tool: str) -> bool:
        """Whether that server has that tool."""
        connection = self._connections.get(label)
        return connection is not None and connection.tool(tool) is not None

    async def call(self, label: str, tool: str, arguments: dict[str, Any]) -> Outcome:
        """Call a tool and render its result; raises `ToolCallFailedError`."""
        connection = self._connections.get(label)
        if connection is None:
            raise ToolCallFailedError("unknown_server", f"there is no MCP server {label!r}")
        result = await connection.call(tool, arguments)
        blocks = [
            block.model_dump(mode="json", by_alias=True, exclude_none=True)
            for block in result.content
        ]
        return render(
            blocks,
            structured=result.structured_content,
            is_error=result.is_error,
            limits=self._limits,
        )
