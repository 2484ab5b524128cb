"""The proxy's process: `python -m tests.chaos.proxy '{"name": [listen, target], ...}'`.

It takes orders on stdin, a JSON object a line, answers each with one, and ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from infra.local.ports import HOST
from tests.chaos.proxy.links import Listener, Trouble

Json = dict[str, Any]
_SOCKET = "socket:["


def ports_of(pids: frozenset[int]) -> frozenset[int]:
    """Return the local ports of the TCP connections of processes; of one that is gone, none.

    Reads what the kernel tells by itself: a library takes a hundred times as long when many
    connections fade away, and meanwhile no byte would pass.
    """
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    ports = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split(None, 10)
        if fields[9] in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(ports)


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith(_SOCKET):
                    yield target[len(_SOCKET) : -1]


def obey(listeners: dict[str, Listener], order: Json) -> Json:
    """Do what an order says and return the answer."""
    if order["do"] == "count":
        return {name: len(listener.links) for name, listener in listeners.items()}
    listener = listeners[order["route"]]
    if order["do"] == "impose":
        trouble = Trouble(**order["trouble"])
        return {"links": listener.impose(trouble, frozenset(order["pids"]))}
    listener.heal()
    return {"links": len(listener.links)}


async def serve(routes: dict[str, tuple[int, int]]) -> None:
    """Listen for every route, and obey until stdin ends."""
    loop = asyncio.get_running_loop()
    listeners = {}
    for name, (listen, target) in routes.items():
        listeners[name] = listener = Listener((HOST, target), ports_of)
        await loop.create_server(listener.protocol, HOST, listen, backlog=1_000)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    answer: Json = {"ready": True}
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if not (line := await orders.readline()):
            return
        answer = obey(listeners, json.loads(line))


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
