"""What bytes are, told from the bytes alone, and how they may be shown."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from urllib.parse import quote

import filetype  # type: ignore[import-untyped]  # it ships no types

from services.artifacts.domain import UNKNOWN_TYPE

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_TEXTUAL = frozenset({"application/pdf", "application/rtf", "application/postscript"})
# Atomic, for the bytes are anybody's: a row of comments must not be matched in every possible way.
_PROLOGUE = r"\ufeff?\s*+(?:(?><\?xml[^>]*>|<!--.*?-->|<!doctype\s+svg[^>]*>)\s*+)*+"
_SVG = re.compile(_PROLOGUE + r"<svg[\s>/]", re.IGNORECASE | re.DOTALL)
_HTML = re.compile(
    _PROLOGUE + r"<(?:!doctype\s+html|html|head|body|script|iframe|style|title|table|div)[\s>/]",
    re.IGNORECASE | re.DOTALL,
)
_SNIFFED_CHARACTERS = 4096
_SNIFFED_BYTES = 4 * _SNIFFED_CHARACTERS
_INLINE = frozenset({"application/pdf", "text/plain"})
_INLINE_FAMILIES = ("image/", "audio/", "video/")
_ACTIVE = frozenset({"image/svg+xml", "text/html"})


class Sniffer:
    """Tells what bytes are while they go by; keeps no more than their beginning."""

    def __init__(self) -> None:
        self._head = b""
        self._decoder = getincrementaldecoder("utf-8")()
        self._is_text = True

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if len(self._head) < _SNIFFED_BYTES:
            self._head += chunk[: _SNIFFED_BYTES - len(self._head)]
        if self._is_text:
            self._is_text = _CONTROL.search(chunk) is None and self._decodes(chunk)

    def _decodes(self, chunk: bytes, *, final: bool = False) -> bool:
        try:
            self._decoder.decode(chunk, final)
        except UnicodeDecodeError:
            return False
        return True

    def result(self) -> tuple[str, str]:
        """Return what `detect` does; nothing may be fed afterwards."""
        is_text = self._is_text and self._decodes(b"", final=True)
        guess = filetype.guess(self._head)
        # Some signatures are two letters ("BM", "MZ"): text that begins with them stays text.
        if guess is not None and (guess.mime in _TEXTUAL or not is_text):
            return str(guess.mime), str(guess.extension)
        if not is_text:
            return UNKNOWN_TYPE, "bin"
        beginning = self._head.decode(errors="ignore")[:_SNIFFED_CHARACTERS]
        if _SVG.match(beginning):
            return "image/svg+xml", "svg"
        if _HTML.match(beginning):
            return "text/html", "html"
        return "text/plain", "txt"


def detect(content: bytes) -> tuple[str, str]:
    """Return the media type of `content` and the usual extension for its name, without the dot.

    What no signature names is `text/plain` when it is UTF-8 text, else `application/octet-stream`.
    """
    sniffer = Sniffer()
    sniffer.feed(content)
    return sniffer.result()


def content_type_header(content_type: str) -> str:
    """Return the header's value: text is always UTF-8 here."""
    return f"{content_type}; charset=utf-8" if content_type.startswith("text/") else content_type


def disposition(filename: str, content_type: str) -> str:
    """Return a `content-disposition` (RFC 6266) for a name of printable characters.

    Only what a browser shows without running it may be inline: HTML and SVG can carry scripts.
    """
    passive = content_type in _INLINE or content_type.startswith(_INLINE_FAMILIES)
    how = "inline" if passive and content_type not in _ACTIVE else "attachment"
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    header = f'{how}; filename="{plain}"'
    if plain != filename:
        header += f"; filename*=UTF-8''{quote(filename, safe='')}"
    return header
