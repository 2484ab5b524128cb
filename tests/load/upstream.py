"""The cheapest upstream that speaks the Responses API: templates; the model's name is the load."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httptools
import orjson
import uvloop

HOST = "127.0.0.1"
TOKEN = re.compile(rb"token=(\d{10})")
TEXT_BYTES = 400
MODEL = re.compile(rb'"model":\s*"bench-(\d{1,4})-(\d{1,4})"')
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_STREAMED = re.compile(rb'"stream":\s*true')
_MODELS = b'{"object":"list","data":[]}'


def model_name(*, deltas: int, interval_ms: int) -> str:
    """Name the model whose streams have that many deltas, each after that pause."""
    return f"bench-{deltas}-{interval_ms}"


_RESPONSE: dict[str, Any] = orjson.loads(b"""{
    "id": "resp_%(id)s", "object": "response", "created_at": 0, "status": "in_progress",
    "background": false, "error": null, "incomplete_details": null, "instructions": null,
    "max_output_tokens": null, "metadata": {}, "model": "", "output": [],
    "parallel_tool_calls": true, "previous_response_id": null,
    "reasoning": {"effort": null, "summary": null}, "service_tier": "default", "store": true,
    "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_p": 1.0, "truncation": "disabled", "usage": null, "user": null
}""")


def _usage(output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": 128,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 128 + output_tokens,
    }


def _event(number: int | str, kind: str, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data.replace(b'"%(n)d"', b"%(n)d"))


def chunk(data: bytes) -> bytes:
    """Frame bytes as one chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True)
class Script:
    """Templates of one model's answers; `%` fills in id, text and, in a delta, its number."""

    answer: bytes
    head: bytes
    delta: bytes
    tail: bytes


@lru_cache(maxsize=64)
def script(deltas: int, interval_ms: int) -> Script:
    """Prepare the answers of a model, so that a request costs next to nothing."""
    model = model_name(deltas=deltas, interval_ms=interval_ms)
    place = {"item_id": "msg_%(id)s", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "%(text)s", "annotations": [], "logprobs": []}
    item = {"id": "msg_%(id)s", "type": "message", "role": "assistant"}
    begun = {**item, "status": "in_progress", "content": []}
    done = {**item, "status": "completed", "content": [part]}
    started = {**_RESPONSE, "model": model, "created_at": int(time.time())}
    ended = {"status": "completed", "output": [done], "usage": _usage(deltas)}
    completed = {**started, **ended}
    text = {"text": "%(text)s", "logprobs": []}
    head = [
        _event(0, "response.created", response=started),
        _event(1, "response.in_progress", response=started),
        _event(2, "response.output_item.added", output_index=0, item=begun),
        _event(3, "response.content_part.added", **place, part={**part, "text": ""}),
    ]
    tail = [
        _event(deltas + 4, "response.output_text.done", **place, **text),
        _event(deltas + 5, "response.content_part.done", **place, part=part),
        _event(deltas + 6, "response.output_item.done", output_index=0, item=done),
        _event(deltas + 7, "response.completed", response=completed),
    ]
    delta = _event("%(n)d", "response.output_text.delta", **place, delta="%(text)s", logprobs=[])
    return Script(orjson.dumps(completed), b"".join(head), delta, b"".join(tail))


class Connection(asyncio.Protocol):
    """One client's connection, one request at a time."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._parser = httptools.HttpRequestParser(self)
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._url, self._body = b"", b""

    def connection_made(self, transport: Any) -> None:
        self._write: Callable[[bytes], None] = transport.write

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

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
            self._write(_OK % (len(_MODELS), _MODELS))
            return
        model, token = MODEL.search(self._body), TOKEN.search(self._body)
        if self._url != b"/v1/responses" or model is None or token is None:
            self._write(_NOT_FOUND)
            return
        deltas, interval_ms = int(model[1]), int(model[2])
        chosen, name = script(deltas, interval_ms), b"%032x" % next(self._numbers)
        if _STREAMED.search(self._body):
            stream = self._stream(chosen, name, token[1], deltas, interval_ms / 1000)
            self._task = asyncio.get_running_loop().create_task(stream)
        else:
            text = token[0].ljust(TEXT_BYTES, b".")
            answer = chosen.answer % {b"id": name, b"text": text}
            whole = _OK % (len(answer), answer)
            if interval_ms:
                # A model that thinks: the answer comes when all of it is there.
                seconds = deltas * interval_ms / 1000
                self._task = asyncio.get_running_loop().create_task(self._later(whole, seconds))
            else:
                self._write(whole)

    async def _later(self, answer: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._write(answer)

    async def _stream(
        self, chosen: Script, name: bytes, token: bytes, deltas: int, interval_s: float
    ) -> None:
        self._write(_STREAM + chunk(chosen.head % {b"id": name}))
        texts = []
        due = time.monotonic()
        for number in range(deltas):
            # Unpaced deltas too are separate writes, side by side with those of other streams.
            due += interval_s
            await asyncio.sleep(max(0.0, due - time.monotonic()) if interval_s else 0)
            await self._room.wait()
            texts.append(b"%b %d %d " % (token, number, time.monotonic_ns()))
            self._write(chunk(chosen.delta % {b"id": name, b"text": texts[-1], b"n": number + 4}))
        tail = chosen.tail % {b"id": name, b"text": b"".join(texts)}
        self._write(chunk(tail) + b"0\r\n\r\n")


async def serve(port: int) -> asyncio.Server:
    """Listen on loopback; close the server to end."""
    numbers = itertools.count(1)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(numbers), HOST, port, backlog=1024)


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
