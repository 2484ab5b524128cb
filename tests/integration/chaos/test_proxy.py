"""The proxy does to connections what it is told, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from infra.local.ports import HOST, free_port
from tests.chaos.proxy import ProxyProcess, Route, Trouble

BIG = bytes(range(256)) * 40_000
WAIT_S = 10.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


class Way:
    """A proxy before a server that says back what it is told."""

    def __init__(self, proxy: ProxyProcess, port: int) -> None:
        self.proxy = proxy
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)


async def said(way: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
    reader, writer = way
    writer.write(data)
    async with asyncio.timeout(WAIT_S):
        return await reader.readexactly(len(data))


async def come_and_read(way: Way) -> None:
    reader, writer = await way.connect()
    with closing(writer):
        await asyncio.wait_for(reader.read(), WAIT_S)


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    server = await asyncio.start_server(echo, HOST, 0)
    port = free_port()
    routes = {"echo": Route(port, server.sockets[0].getsockname()[1])}
    async with server, ProxyProcess(routes) as proxy:
        yield Way(proxy, port)


async def test_all_bytes_pass_in_order(way: Way) -> None:
    connection = await way.connect()
    assert await said(connection, BIG) == BIG
    assert await way.proxy.links() == {"echo": 1}
    connection[1].close()


async def test_a_cut_resets_what_is_open_and_what_comes_until_it_is_healed(way: Way) -> None:
    reader, writer = await way.connect()
    assert await said((reader, writer), b"before") == b"before"
    assert await way.proxy.impose("echo", Trouble(what="cut")) == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    # It may come before the client has noticed that it is connected.
    with pytest.raises(ConnectionResetError):
        await come_and_read(way)
    await way.proxy.heal()
    connection = await way.connect()
    assert await said(connection, b"after") == b"after"
    connection[1].close()


async def test_what_falls_into_a_hole_comes_out_when_it_is_healed(way: Way) -> None:
    reader, writer = await way.connect()
    assert await said((reader, writer), b"before") == b"before"
    await way.proxy.impose("echo", Trouble(what="blackhole"))
    new_reader, new_writer = await way.connect()
    writer.write(b"lost?")
    new_writer.write(b"new?")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    await way.proxy.heal("echo")
    async with asyncio.timeout(WAIT_S):
        assert await reader.readexactly(5) == b"lost?"
        assert await new_reader.readexactly(4) == b"new?"
    writer.close()
    new_writer.close()


async def test_an_end_in_a_hole_is_told_when_it_is_healed(way: Way) -> None:
    reader, writer = await way.connect()
    assert await said((reader, writer), b"before") == b"before"
    await way.proxy.impose("echo", Trouble(what="blackhole"))
    writer.close()
    await writer.wait_closed()
    assert await way.proxy.links() == {"echo": 1}
    await way.proxy.heal()
    async with asyncio.timeout(WAIT_S):
        while await way.proxy.links() != {"echo": 0}:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)


async def test_a_client_that_left_while_it_was_in_a_hole_is_no_process_s_any_more(way: Way) -> None:
    connection = await way.connect()
    assert await said(connection, b"before") == b"before"
    await way.proxy.impose("echo", Trouble(what="blackhole"))
    connection[1].close()
    await connection[1].wait_closed()
    for _ in range(10):  # Each is a turn of the proxy, which notices the end in one of them.
        assert await way.proxy.links() == {"echo": 1}
    assert await way.proxy.impose("echo", Trouble(what="cut"), [os.getpid()]) == 0


async def test_delay_and_throttle_hold_bytes_back_and_keep_their_order(way: Way) -> None:
    loop = asyncio.get_running_loop()
    connection = await way.connect()
    await way.proxy.impose("echo", Trouble(what="delay", delay_ms=100, jitter_ms=50))
    began = loop.time()
    assert await said(connection, BIG[:100_000]) == BIG[:100_000]
    assert loop.time() - began >= 0.2
    await way.proxy.impose("echo", Trouble(what="throttle", bytes_per_s=400_000))
    began = loop.time()
    assert await said(connection, BIG[:100_000]) == BIG[:100_000]
    assert loop.time() - began >= 0.25
    connection[1].close()


async def test_only_the_processes_that_are_named_are_troubled(way: Way) -> None:
    connection = await way.connect()
    assert await way.proxy.impose("echo", Trouble(what="cut"), [os.getppid()]) == 0
    assert await said(connection, b"unhurt") == b"unhurt"
    assert await way.proxy.impose("echo", Trouble(what="cut"), [os.getpid()]) == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(connection[0].read(), WAIT_S)
    connection[1].close()
