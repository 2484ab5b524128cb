"""Heads travel with the bodies that follow them, and never wait for any."""

from __future__ import annotations

import asyncio

from services.kit.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.sent


async def test_a_head_and_its_body_are_one_write() -> None:
    wire = Wire()
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    joined.write(b"{}")
    joined.write(b"more")
    await asyncio.sleep(0)
    assert wire.sent == [HEAD + b"{}", b"more"]


async def test_a_head_whose_body_is_late_goes_out_in_the_same_turn_of_the_loop() -> None:
    wire = Wire()
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    await asyncio.sleep(0)
    joined.write(b"late")
    assert wire.sent == [HEAD, b"late"]


async def test_a_body_that_looks_like_a_head_keeps_its_place() -> None:
    wire = Wire()
    joined = JoinedWrites(wire)
    for data in (HEAD, b"HTTP/1.1 is what this text is about", b"HTTP/1.1 ", b"and more"):
        joined.write(data)
    await asyncio.sleep(0)
    assert b"".join(part for part in wire.sent if isinstance(part, bytes)) == (
        HEAD + b"HTTP/1.1 is what this text is about" + b"HTTP/1.1 and more"
    )


async def test_closing_sends_the_head_first() -> None:
    wire = Wire()
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    joined.close()
    assert wire.sent == [HEAD, "closed"]
    assert joined.is_closing()
