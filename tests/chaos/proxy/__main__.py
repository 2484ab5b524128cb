"""The proxy's process: `python -m tests.chaos.proxy '{"name": [listen, target], ...}'`.

It takes orders on stdin, a JSON object a line, answers each with one, and ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import psutil
import uvloop

from infra.local.ports import HOST
from tests.chaos.proxy.links import Listener, Trouble

Json = dict[str, Any]


def ports_of(pids: frozenset[int]) -> frozenset[int]:
    """Return the local ports of the TCP connections of processes; of one that is gone, none."""
    ports: set[int] = set()
    for pid in pids:
        try:
            found = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        ports |= {connection.laddr.port for connection in found if connection.laddr}
    return frozenset(ports)


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
