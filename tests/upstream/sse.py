"""Server-sent events as bytes, well-formed or awkward on purpose; no network here."""

from dataclasses import dataclass
from itertools import pairwise

import orjson

from tests.upstream.answers import Json

DONE = b"[DONE]"
GARBAGE = b"\xff\xfe\x00 no field, no colon\n\x80data\n\n"


@dataclass
class Wire:
    """How events become bytes. `split` is a chunk size in bytes, 0 leaves frames whole."""

    eol: bytes = b"\n"
    names: bool = True
    space: bool = True
    comments: bool = False
    keepalives: bool = False
    multiline: bool = False
    bom: bool = False
    done: bool = True
    awkward: bool = False
    split: int = 0

    def event(self, payload: Json, *, first: bool = False) -> bytes:
        """One event with everything that this wire puts around it."""
        before = b"\xef\xbb\xbf" if self.bom and first else b""
        if self.comments:
            before += b": keepalive" + self.eol * 2
        if self.keepalives:
            before += self._frame(b"keepalive", [b'{"type":"keepalive"}'])
        name = str(payload["type"]).encode() if "type" in payload else None
        return before + self._frame(name, self._data_lines(payload))

    def broken(self) -> bytes:
        """A well-formed frame whose data is no JSON."""
        return self._frame(None, [b'{"type":"response.output_text.delta","delta":"bro'])

    def end(self) -> bytes:
        """The end marker, or nothing on a wire that sends none."""
        return self._frame(None, [DONE]) if self.done else b""

    def pieces(self, data: bytes) -> list[bytes]:
        """The writes in which the bytes go out; joined they are `data`."""
        if self.split:
            return [data[at : at + self.split] for at in range(0, len(data), self.split)]
        if self.awkward:
            return _awkward(data)
        return [data]

    def _data_lines(self, payload: Json) -> list[bytes]:
        if self.multiline:
            return orjson.dumps(payload, option=orjson.OPT_INDENT_2).split(b"\n")
        return [orjson.dumps(payload)]

    def _frame(self, name: bytes | None, data: list[bytes]) -> bytes:
        colon = b": " if self.space else b":"
        lines = [b"event" + colon + name] if name and self.names else []
        lines.extend(b"data" + colon + line for line in data)
        return b"".join(line + self.eol for line in lines) + self.eol


def _awkward(data: bytes) -> list[bytes]:
    """Cut inside field names, inside every multi-byte character and inside every line end."""
    cuts = {3}
    for at in range(1, len(data)):
        inside_character = data[at] & 0xC0 == 0x80
        inside_line_end = data[at : at + 1] in b"\r\n" and data[at - 1 : at] in b"\r\n"
        if inside_character or inside_line_end:
            cuts.add(at)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
