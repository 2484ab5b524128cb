"""An answer ends where HTTP says so, however it comes in parts, or it is an OSError."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.client import Connection
from tests.load.templates import chunk
from tests.load.window import Reads

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
BODY = b"data: {}\r\n\r\n" * 3
WHOLE = (
    CHUNKED
    + b"".join(map(chunk, (b"data: {}\r\n\r\n", b"data", b": {}\r\n\r\n")))
    + (chunk(b"data: {}\r\n\r\n") + b"0\r\n\r\n")
)


class Wire(asyncio.Transport):
    """Keeps what was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


def connect() -> tuple[Connection, Wire]:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)
    return connection, wire


async def answered(
    parts: Iterable[bytes], connection: Connection, *, collects: bool = True
) -> tuple[int, bytes]:
    """Ask, feed the parts, and give status and body; the answer must be there with the last."""
    reads = Reads()
    answer = connection.ask(b"?", reads=reads if collects else None)
    for part in parts:
        assert not answer.done()
        connection.data_received(part)
    assert answer.done()
    assert not collects or reads.parts == list(parts)
    return await answer, connection.body


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12, unique=True), st.booleans())
def test_a_chunked_answer_is_whole_with_its_last_byte_wherever_it_is_cut(
    cuts: list[int], collects: bool
) -> None:
    parts = [WHOLE[at:end] for at, end in pairwise([0, *sorted(cuts), len(WHOLE)])]

    async def twice() -> None:
        connection, wire = connect()
        for _ in range(2):
            assert await answered(parts, connection, collects=collects) == (200, BODY)
        assert connection.is_open
        assert wire.written == [b"?", b"?"]

    asyncio.run(twice())


async def test_an_answer_with_trailers_ends_behind_them() -> None:
    parts = [CHUNKED, chunk(b"data: {}\n\n"), b"0\r\nx-sum: 1\r\n\r\n"]
    assert await answered(parts, connect()[0]) == (200, b"data: {}\n\n")


async def test_an_answer_of_known_length_ends_with_it() -> None:
    head = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\n"
    connection, _ = connect()
    assert await answered([head, b"\r\n\r", b"\n"], connection) == (503, b"\r\n\r\n")
    assert await answered([WHOLE], connection) == (200, BODY)


async def test_a_connection_that_is_to_be_closed_is_not_used_again() -> None:
    connection, wire = connect()
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert await answered([head, chunk(b"x") + b"0\r\n\r\n"], connection) == (200, b"x")
    assert not connection.is_open
    assert wire.is_closed


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    connection, _ = connect()
    answer = connection.ask(b"?", reads=Reads())
    connection.data_received(CHUNKED + chunk(b"x"))
    connection.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await answer


async def test_an_answer_that_is_not_http_closes_the_connection() -> None:
    connection, wire = connect()
    answer = connection.ask(b"?", reads=Reads())
    connection.data_received(CHUNKED)
    connection.data_received(b"not a length\r\n\r\n")
    assert wire.is_closed
    connection.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await answer
