"""Free text out of the JSON object it travels in, while the object is still arriving."""

from __future__ import annotations

import json
import re

# The wrapper is `{"input": "..."}`; its beginning must fit in this many characters to stream.
_HEAD_LIMIT = 64
_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# Whole characters of a JSON string: surrogates only in pairs, since half a pair is no character.
_CHARACTERS = re.compile(
    r"""(?: [^"\\]+
          | \\["\\/bfnrt]
          | \\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}
          | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}
        )*""",
    re.VERBOSE,
)


class InputUnwrapper:
    """Undoes the wrapper of a custom tool's input, piece by piece.

    What `feed` and then `finish` return, concatenated, is the input, however the JSON was cut.
    A model that ignores the wrapper, or breaks off inside it, still gets its words through.
    """

    __slots__ = ("_pending", "_raw", "_state", "_text")

    def __init__(self) -> None:
        self._raw: list[str] = []
        self._pending = ""
        self._text: list[str] = []
        self._state = "head"

    def feed(self, piece: str) -> str:
        """Take more JSON; return the text that is certain by now and was not returned before."""
        self._raw.append(piece)
        if self._state == "end":
            return ""
        self._pending += piece
        if self._state == "head" and not self._skip_head():
            return ""
        text = self._take_characters()
        self._text.append(text)
        return text

    def finish(self) -> str:
        """Return the text still owed, now that no more JSON comes."""
        streamed = "".join(self._text)
        whole = self._whole(streamed)
        return whole[len(streamed) :] if whole.startswith(streamed) else ""

    def complete(self) -> bool:
        """Say whether the JSON so far is a whole object."""
        return is_whole_object("".join(self._raw))

    def _skip_head(self) -> bool:
        head = _HEAD.match(self._pending, 0, _HEAD_LIMIT)
        if head:
            self._state = "text"
            self._pending = self._pending[head.end() :]
        elif len(self._pending) >= _HEAD_LIMIT:
            self._state = "end"
        return head is not None

    def _take_characters(self) -> str:
        pending = self._pending
        if '"' not in pending and "\\" not in pending:
            self._pending = ""
            return pending
        match = _CHARACTERS.match(pending)
        end = match.end() if match else 0
        self._pending = pending[end:]
        if self._pending.startswith('"'):
            self._state = "end"
        text: str = json.loads(f'"{pending[:end]}"', strict=False)
        return text

    def _whole(self, streamed: str) -> str:
        raw = "".join(self._raw)
        try:
            value = json.loads(raw, strict=False)
        except (ValueError, RecursionError):
            return streamed or raw
        if isinstance(value, dict) and "input" in value:
            value = value["input"]
        if not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        # Half a surrogate pair can't be sent as UTF-8.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_whole_object(raw: str) -> bool:
    """Say whether `raw` is one JSON object, so that nothing but blanks can follow."""
    try:
        return isinstance(json.loads(raw, strict=False), dict)
    except (ValueError, RecursionError):
        return False
