"""Files as parts of chat messages: text as text, images as images, PDF as the file it is."""

from __future__ import annotations

import base64
import binascii
import re
from mimetypes import MimeTypes
from typing import Any
from urllib.parse import unquote_to_bytes

from services.worker.chat.errors import UnsupportedParameterError

Part = dict[str, Any]
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<options>[^,]*),", re.IGNORECASE)
_TEXTUAL = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/sql",
        "application/toml",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)
# The types of the machine's own list would differ from one machine to the next.
_TYPES = MimeTypes()
for _extension in ("conf", "ini", "jsonl", "log", "md", "rst", "sql", "toml", "yaml", "yml"):
    _TYPES.add_type("text/plain", f".{_extension}")
_SAYS_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_PDF = "application/pdf"


def file_part(part: Part, data: str, where: str) -> Part:
    """Return the chat part for an `input_file` with `file_data`, a data URL or plain base64.

    What nothing says the type of goes on as a file, for the provider to judge. Raises
    UnsupportedParameterError for a type that chat messages have no part for.
    """
    kind = _content_type(data, part.get("filename"))
    if kind.startswith("text/") or kind in _TEXTUAL:
        return {"type": "text", "text": _named(part, _text(data, where))}
    if kind.startswith("image/"):
        url = data if _DATA_URL.match(data) else f"data:{kind};base64,{data}"
        detail = {} if part.get("detail") is None else {"detail": part["detail"]}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    if kind not in (_PDF, "application/octet-stream"):
        raise UnsupportedParameterError(
            where,
            f"Files of type '{kind}' are not supported by providers of dialect 'chat': "
            "they take text, images and PDF.",
        )
    file: Part = {"file_data": data}
    if part.get("filename") is not None:
        file["filename"] = part["filename"]
    return {"type": "file", "file": file}


def _content_type(data: str, filename: object) -> str:
    match = _DATA_URL.match(data)
    told = match["type"].strip().lower() if match else ""
    if told not in _SAYS_NOTHING:
        return told
    guessed = _TYPES.guess_type(filename)[0] if isinstance(filename, str) else None
    return guessed or "application/octet-stream"


def _named(part: Part, text: str) -> str:
    filename = part.get("filename")
    return f"{filename}:\n\n{text}" if filename else text


def _text(data: str, where: str) -> str:
    match = _DATA_URL.match(data)
    payload = data[match.end() :] if match else data
    try:
        if match and "base64" not in match["options"].lower():
            return unquote_to_bytes(payload).decode()
        return base64.b64decode(payload, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise UnsupportedParameterError(
            f"{where}.file_data", f"'{where}.file_data' is no UTF-8 text in base64."
        ) from error
