"""A small MCP server whose tools leave traces: `python tool_server.py stdio|streamable_http|sse`.

The HTTP transports serve `/mcp` and `/sse` on the port in PORT.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("traces")


@server.tool()
def note(path: str, line: str) -> str:
    """Append a line to a file."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return f"noted {line}"


@server.tool()
async def note_and_wait(path: str, line: str, until: str) -> str:
    """Append a line to a file, then wait until another file exists."""
    note(path, line)
    waited_for = Path(until)
    while not waited_for.exists():  # noqa: ASYNC110, ASYNC240 - another process makes the file
        await asyncio.sleep(0.02)
    return f"noted {line} and waited"


@server.tool()
async def grow(name: str, context: Context) -> str:
    """Offer one more tool and say so."""

    def extra() -> str:
        """Say that it is new."""
        return f"I am {name}"

    server.add_tool(extra, name=name)
    await context.notify_tools_changed()
    return "grown"


@server.tool()
async def die() -> str:
    """End the process in the middle of the call."""
    sys.stderr.write("dying on request\n")
    sys.stderr.flush()
    os._exit(3)


@server.tool()
async def environment() -> list[str]:
    """Return the names of all environment variables."""
    return sorted(os.environ)


def main() -> None:
    """Serve until the standard input ends, or for ever over HTTP."""
    transport = sys.argv[1]
    if transport == "stdio":
        server.run("stdio")
    elif transport == "sse":
        server.run("sse", port=int(os.environ["PORT"]))
    else:
        server.run("streamable-http", port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
