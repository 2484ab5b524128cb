"""Templates of the upstream's answers: what is the same in each is put together once per model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import orjson

TEXT_BYTES = 400
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_NAME, _TOKEN = b"!" * 32, b"@" * 10
"""Stand for what each answer has of its own, which is always of this length."""


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


def ok(body: bytes) -> bytes:
    """Give an HTTP answer with a body of JSON."""
    return _OK % (len(body), body)


def delta_text(token: bytes, number: int, written_ns: int) -> bytes:
    """Give the text of a delta; the time is 0 where nobody asks when it was written."""
    return b"%b %d %d " % (token, number, written_ns)


class Script:
    """The answers of one model, made of a name of 32 bytes and a token of 10.

    The templates have `%` for id and text and, in a delta, for its number.
    """

    def __init__(self, deltas: int, answer: bytes, stream: tuple[bytes, bytes, bytes]) -> None:
        self._head, self._delta, self._tail = stream
        text = (b"token=" + _TOKEN).ljust(TEXT_BYTES, b".")
        body = answer % {b"id": _NAME, b"text": text}
        self._answer = ok(body)
        # Between two deltas' numbers stand name and token, with the same bytes between them.
        between = self._delta.partition(b"%(id)s")[2].partition(b"%(text)s")[0]
        self._own = b"%b" + between + b"%b"
        texts = [delta_text(_TOKEN, number, 0) for number in range(deltas)]
        all_deltas = [self.delta(_NAME, text, number) for number, text in enumerate(texts)]
        self._around = b"".join(all_deltas).split(_NAME + between + _TOKEN)
        self._texts = b"".join(texts).split(_TOKEN)
        self._places = list(pairwise(accumulate(map(len, all_deltas), initial=0)))

    def answer(self, name: bytes, token: bytes) -> bytes:
        """Give the whole answer as JSON, with the HTTP around it."""
        return self._answer.replace(_NAME, name).replace(_TOKEN, token)

    def head(self, name: bytes) -> bytes:
        """Give what a stream begins with, the head of the HTTP answer included."""
        return _STREAM + chunk(self._head % {b"id": name})

    def delta(self, name: bytes, text: bytes, number: int) -> bytes:
        """Give one delta as a chunk."""
        return chunk(self._delta % {b"id": name, b"text": text, b"n": number + 4})

    def tail(self, name: bytes, text: bytes) -> bytes:
        """Give what follows the last delta, up to the end of the HTTP answer; `text` is of all."""
        return chunk(self._tail % {b"id": name, b"text": text}) + b"0\r\n\r\n"

    def writes(self, name: bytes, token: bytes) -> Iterator[bytes]:
        """Give a whole unpaced stream, write by write: one for each delta, whose times are 0.

        All deltas are made at once, for they differ from those of another stream in name and
        token alone.
        """
        yield self.head(name)
        deltas = (self._own % (name, token)).join(self._around)
        for start, end in self._places:
            yield deltas[start:end]
        yield self.tail(name, token.join(self._texts))


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
    stream = b"".join(head), delta, b"".join(tail)
    # Paced deltas carry the time, so that nothing of them is the same twice.
    return Script(0 if interval_ms else deltas, orjson.dumps(completed), stream)
