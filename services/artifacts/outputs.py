"""Finds the files in the output of a Response object, which may hold anything. No I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from services.artifacts.domain import (
    Found,
    Kind,
    Limits,
    Reason,
    Refused,
    clean_filename,
    clean_text,
)

_MAX_ITEM_ID = 256
_LINE_BREAKS_SHARE = 1.05
_IMAGE_PARTS = frozenset({"input_image", "output_image", "image_url", "image"})
_AUDIO_PARTS = frozenset({"input_audio", "output_audio", "audio"})


@dataclass(frozen=True, slots=True)
class _Source:
    kind: Kind
    encoded: str
    filename: str | None = None


class _RefusalError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def find_files(response: Mapping[str, Any], limits: Limits) -> list[Found | Refused]:
    """Return the files in `response["output"]` in order, decoded, and those that are refused.

    Never raises: what has an unknown shape holds no file. Beyond `limits.max_files` one `too_many`
    stands for all the rest. CPU-bound: tens of milliseconds for tens of megabytes.
    """
    results: list[Found | Refused] = []
    for position, (item_id, source) in enumerate(_candidates(response.get("output"))):
        if position >= limits.max_files:
            detail = f"more than {limits.max_files} files"
            results.append(
                _refused(position, item_id, source.kind, _RefusalError("too_many", detail))
            )
            break
        try:
            content = _decoded(source.encoded, limits.max_bytes)
        except _RefusalError as error:
            results.append(_refused(position, item_id, source.kind, error))
            continue
        results.append(
            Found(
                position=position,
                item_id=item_id,
                kind=source.kind,
                filename=clean_filename(source.filename),
                content=content,
            )
        )
    return results


def _refused(position: int, item_id: str, kind: Kind, error: _RefusalError) -> Refused:
    return Refused(
        position=position, item_id=item_id, kind=kind, reason=error.reason, detail=error.detail
    )


def _candidates(output: object) -> Iterator[tuple[str, _Source]]:
    for index, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict):
            name = clean_text(_text(item, "id") or _text(item, "call_id"), longest=_MAX_ITEM_ID)
            for source in _item(item):
                yield name or f"output_{index}", source


def _item(item: dict[str, Any]) -> Iterator[_Source]:
    kind = item.get("type")
    if kind == "image_generation_call" and (result := _text(item, "result")):
        yield _Source("image", result)
    for field in ("content", "output", "outputs"):
        value = item.get(field)
        if kind == "mcp_call" and isinstance(value, str):
            value = _content_blocks(value)
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, dict) and (source := _part(part)):
                yield source


def _content_blocks(text: str) -> object:
    """Return what the text of an MCP call says, when it is the JSON of its content blocks."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        return value["content"]
    return value


def _part(part: dict[str, Any]) -> _Source | None:
    kind = _text(part, "type")
    filename = _text(part, "filename") or None
    if file_data := _text(part, "file_data"):
        return _Source("file", file_data, filename)
    if kind == "resource" and isinstance(part.get("resource"), dict):
        return _resource(part["resource"])
    if kind in _AUDIO_PARTS:
        nested = part.get("input_audio")
        data = _text(nested if isinstance(nested, dict) else part, "data")
        return _Source("audio", data, filename) if data else None
    if kind in _IMAGE_PARTS or "image_url" in part:
        return _image(part, filename)
    return None


def _image(part: dict[str, Any], filename: str | None) -> _Source | None:
    nested = part.get("image_url")
    url = _text(nested, "url") if isinstance(nested, dict) else _text(part, "image_url")
    url = url or _text(part, "url")
    if url:
        # Any other URL is a picture that somebody else keeps.
        return _Source("image", url, filename) if _is_data_url(url) else None
    data = _text(part, "data")
    return _Source("image", data, filename) if data else None


def _resource(resource: dict[str, Any]) -> _Source | None:
    blob, name = _text(resource, "blob"), _text(resource, "name")
    if not name:
        try:
            name = unquote(urlsplit(_text(resource, "uri")).path)
        except ValueError:
            name = ""
    return _Source("file", blob, name or None) if blob else None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def _decoded(encoded: str, max_bytes: int) -> bytes:
    """Return the bytes of a data URL (RFC 2397) or of base64 (RFC 4648, line breaks allowed)."""
    is_base64 = True
    if _is_data_url(encoded):
        header, comma, encoded = encoded[5:].partition(",")
        if not comma:
            raise _RefusalError("malformed", "a data URL without a comma")
        is_base64 = header.lower().endswith(";base64")
    # Known before the memory is spent; the exact size follows.
    if len(encoded) > (max_bytes / 3 + 1) * 4 * _LINE_BREAKS_SHARE and is_base64:
        raise _RefusalError("too_large", f"more than {max_bytes} bytes")
    content = _from_base64(encoded) if is_base64 else _from_percent(encoded, max_bytes)
    if len(content) > max_bytes:
        raise _RefusalError("too_large", f"{len(content)} bytes, more than {max_bytes}")
    return content


def _from_base64(encoded: str) -> bytes:
    if "%" in encoded:
        encoded = unquote(encoded)
    try:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise _RefusalError("malformed", f"not base64: {error}") from error


def _from_percent(encoded: str, max_bytes: int) -> bytes:
    if len(encoded) > 3 * max_bytes:
        raise _RefusalError("too_large", f"more than {max_bytes} bytes")
    try:
        return unquote_to_bytes(encoded)
    except ValueError as error:
        raise _RefusalError("malformed", f"not a data URL: {error}") from error
