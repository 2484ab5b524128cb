"""What bytes are, told from the bytes alone, and how they may be shown."""

from __future__ import annotations

import re
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
_INLINE = frozenset({"application/pdf", "text/plain"})
_INLINE_FAMILIES = ("image/", "audio/", "video/")
_ACTIVE = frozenset({"image/svg+xml", "text/html"})


def detect(content: bytes) -> tuple[str, str]:
    """Return the media type of `content` and the usual extension for its name, without the dot.

    What no signature names is `text/plain` when it is UTF-8 text, else `application/octet-stream`.
    """
    guess = filetype.guess(content)
    # Some signatures are two letters ("BM", "MZ"): text that begins with them stays text.
    if guess is not None and (guess.mime in _TEXTUAL or not _is_text(content)):
        return str(guess.mime), str(guess.extension)
    if not _is_text(content):
        return UNKNOWN_TYPE, "bin"
    beginning = content[: 4 * _SNIFFED_CHARACTERS].decode(errors="ignore")[:_SNIFFED_CHARACTERS]
    if _SVG.match(beginning):
        return "image/svg+xml", "svg"
    if _HTML.match(beginning):
        return "text/html", "html"
    return "text/plain", "txt"


def _is_text(content: bytes) -> bool:
    if _CONTROL.search(content):
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


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
