"""An MCP server whose one tool notes each time it is run: `python counting.py LEDGER`."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from pathlib import Path

import orjson
from mcp.server import MCPServer

LABEL = "counting"
TOOL = "count"
WORK_S = 0.1


def server(ledger: Path) -> MCPServer:
    """Return the server; it appends a line when a run begins and another when it ends."""
    app = MCPServer(LABEL)

    def note(what: str, key: str, execution: str) -> None:
        line = {"what": what, "key": key, "execution": execution, "at": time.time()}
        with ledger.open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")

    @app.tool(name=TOOL, description="Counts a key and tells which execution that was.")
    async def count(key: str) -> str:
        execution = secrets.token_hex(6)
        note("begun", key, execution)
        await asyncio.sleep(WORK_S)
        note("ended", key, execution)
        return f"{key}#{execution}"

    return app


def servers_file(ledger: Path) -> str:
    """Return the broker's servers file (TOML) with this server, which writes to `ledger`."""
    # As a file, so that it starts without the packages that it lies in.
    return f"""
[[servers]]
label = "{LABEL}"
transport = "stdio"
command = "{sys.executable}"
args = ["{Path(__file__).absolute()}", "{ledger}"]
"""


if __name__ == "__main__":
    server(Path(sys.argv[1])).run()
