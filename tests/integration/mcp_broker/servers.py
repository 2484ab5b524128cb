"""Real MCP servers for the tests: their configuration, and those that serve HTTP as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from services.kit.clock import SystemClock
from services.mcp_broker.clients.connection import ServerConnection, ServerState
from services.mcp_broker.servers_file import ServerConfig

TOOL_SERVER = str(Path(__file__).with_name("tool_server.py"))
PATIENCE_SECONDS = 30.0


def traces(label: str = "traces", **more: Any) -> ServerConfig:
    """Return our own tool server as a child process."""
    return ServerConfig(
        label=label, transport="stdio", command=sys.executable, args=(TOOL_SERVER, "stdio"), **more
    )


def gated(gate: Path, **more: Any) -> ServerConfig:
    """Return our own tool server as a child process that answers once a file exists."""
    script = f'while [ ! -e "{gate}" ]; do sleep 0.02; done; exec "$0" "$@"'
    args = ("-c", script, sys.executable, TOOL_SERVER, "stdio")
    return ServerConfig(label="traces", transport="stdio", command="sh", args=args, **more)


def everything(command: Sequence[str], **more: Any) -> ServerConfig:
    """Return `server-everything` as a child process."""
    program, *args = command
    return ServerConfig(
        label="everything", transport="stdio", command=program, args=(*args, "stdio"), **more
    )


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fails after half a minute."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - other processes make it true
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(command: Sequence[str], port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an MCP server over HTTP until the end of the block, from when it accepts connections."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                await writer.wait_closed()
                break
        yield process
    finally:
        # The whole group: the program may be a launcher of the real one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Watched:
    """A connection and all states it went through."""

    def __init__(self, config: ServerConfig) -> None:
        self.seen: list[ServerState] = []
        self.connection = ServerConnection(config, clock=SystemClock(), on_change=self.seen.append)

    @property
    def state(self) -> ServerState:
        return self.connection.state

    def offers(self) -> list[str]:
        return [tool.name for tool in self.state.tools]

    async def ready(self) -> None:
        await until(lambda: self.state.status == "ready")

    async def text(self, tool: str, **arguments: Any) -> str:
        """Call a tool and return the text of its first block."""
        result = await self.connection.call(tool, arguments)
        return str(result.content[0].model_dump()["text"])


@contextlib.asynccontextmanager
async def connected(config: ServerConfig, *, wait: bool = True) -> AsyncIterator[Watched]:
    """Keep a server connected until the end of the block."""
    watched = Watched(config)
    await watched.connection.start()
    try:
        if wait:
            await watched.ready()
        yield watched
    finally:
        await watched.connection.stop()


def processes(marker: str) -> list[int]:
    """Return the ids of the processes that have `marker` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found


def kill(marker: str) -> None:
    """Kill the one process that has `marker` in its environment."""
    [pid] = processes(marker)
    os.kill(pid, signal.SIGKILL)
