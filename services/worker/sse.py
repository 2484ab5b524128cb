"""Server-sent events as bytes: whole events out of arbitrary chunks, parsed only on demand."""

from __future__ import annotations

from typing import Any

import orjson

from services.worker.errors import UpstreamError

END = b"\n\n"
_BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Cuts a byte stream into blocks of whole events; line ends become LF."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._rest = b""
        self._limit_bytes = limit_bytes
        self._begun = False

    def feed(self, chunk: bytes) -> bytes:
        """Return all events that are complete now, each ended by an empty line, or b""."""
        data = self._rest + chunk if self._rest else chunk
        if not self._begun:
            self._begun = len(data) >= len(_BOM)
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        cut = data.rfind(END)
        if cut < 0:
            if len(data) > self._limit_bytes:
                raise UpstreamError(
                    f"the provider sent an event above {self._limit_bytes} bytes", retryable=False
                )
            self._rest = data
            return b""
        cut += len(END)
        self._rest = data[cut:]
        return data[:cut]

    def finish(self) -> bytes:
        """Return what the end of the stream completes: an event whose empty line ended in CR."""
        if not self._rest.endswith(b"\r"):
            return b""
        return self.feed(b"\n")


def has_special(block: bytes) -> bool:
    """Whether a block may hold events about the response as a whole, which need a closer look.

    The marks are keys and values of such events; inside a JSON string their quotes are escaped.
    """
    return b'"response"' in block or b'"error"' in block or b"[DONE]" in block


def is_whole(block: bytes) -> bool:
    """Whether every event of a block ends as a JSON object does; cheap, so no proof that it is."""
    return block.count(END) == block.count(b"}" + END)


def frames(block: bytes) -> list[bytes]:
    """Split a block of whole events into single ones, without their empty lines."""
    return [frame for frame in block.split(END) if frame]


def data_of(frame: bytes) -> bytes:
    """Return the data of one event, b"" for a comment."""
    lines = [line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line[:5] == b"data:"]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def parse(frame: bytes) -> dict[str, Any] | None:
    """Return the event's JSON object, None for comments and `[DONE]`; raises `UpstreamError`."""
    data = data_of(frame)
    if not data or data == b"[DONE]":
        return None
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UpstreamError("the provider sent an event that is no JSON") from error
    if not isinstance(event, dict):
        raise UpstreamError("the provider sent an event that is no JSON object")
    return event


def encode(event: dict[str, Any]) -> bytes:
    """Return one event as the Responses API writes it."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
