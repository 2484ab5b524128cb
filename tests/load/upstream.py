"""The cheapest upstream that speaks the Responses API: templates; the model's name is the load."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httptools
import uvloop

from tests.load.rounds import Rounds
from tests.load.templates import Script, delta_text, ok, script

HOST = "127.0.0.1"
TOKEN = re.compile(rb"token=(\d{10})")
MODEL = re.compile(rb'"model":\s*"bench-(\d{1,4})-(\d{1,4})"')
_NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
_STREAMED = re.compile(rb'"stream":\s*true')
_MODELS = ok(b'{"object":"list","data":[]}')


class Connection(asyncio.Protocol):
    """One client's connection, one request at a time."""

    def __init__(self, numbers: Iterator[int], rounds: Rounds) -> None:
        self._numbers = numbers
        self._rounds = rounds
        self._parser = httptools.HttpRequestParser(self)
        self._room = asyncio.Event()
        self._room.set()
        self._held: Iterator[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._url, self._body = b"", b""

    def connection_made(self, transport: Any) -> None:
        self._write: Callable[[bytes], None] = transport.write

    def connection_lost(self, _exc: Exception | None) -> None:
        self._rounds.remove(self._write)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._room.clear()
        self._held = self._rounds.remove(self._write)

    def resume_writing(self) -> None:
        self._room.set()
        if self._held is not None:
            self._rounds.add(self._write, self._held)
            self._held = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url in (b"/healthz", b"/v1/models"):
            self._write(_MODELS)
            return
        model, token = MODEL.search(self._body), TOKEN.search(self._body)
        if self._url != b"/v1/responses" or model is None or token is None:
            self._write(_NOT_FOUND)
            return
        deltas, interval_ms = int(model[1]), int(model[2])
        chosen, name = script(deltas, interval_ms), b"%032x" % next(self._numbers)
        if _STREAMED.search(self._body) is None:
            # A model that thinks: the answer comes when all of it is there.
            self._answer(chosen.answer(name, token[1]), deltas * interval_ms / 1000)
        elif interval_ms:
            stream = self._paced(chosen, name, token[1], deltas, interval_ms / 1000)
            self._task = asyncio.get_running_loop().create_task(stream)
        else:
            self._stream(chosen.writes(name, token[1]))

    def _answer(self, answer: bytes, after_s: float) -> None:
        if after_s:
            self._task = asyncio.get_running_loop().create_task(self._later(answer, after_s))
        else:
            self._write(answer)

    async def _later(self, answer: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._write(answer)

    def _stream(self, writes: Iterator[bytes]) -> None:
        """Write all as fast as it goes, side by side with the other streams."""
        if self._room.is_set():
            self._rounds.add(self._write, writes)
        else:
            self._held = writes

    async def _paced(
        self, chosen: Script, name: bytes, token: bytes, deltas: int, interval_s: float
    ) -> None:
        self._write(chosen.head(name))
        texts = []
        due = time.monotonic()
        for number in range(deltas):
            due += interval_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._room.wait()
            texts.append(delta_text(token, number, time.monotonic_ns()))
            self._write(chosen.delta(name, texts[-1], number))
        self._write(chosen.tail(name, b"".join(texts)))


async def serve(port: int) -> asyncio.Server:
    """Listen on loopback; close the server to end."""
    numbers, rounds = itertools.count(1), Rounds()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(numbers, rounds), HOST, port, backlog=1024)


async def _run(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await serve(port)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.load.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_run(parser.parse_args().port))
