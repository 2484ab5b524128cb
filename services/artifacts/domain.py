"""What an artifact is: identity, name, kind and the limits on it. No I/O."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from contracts.principal import Principal

Kind = Literal["image", "file", "audio"]
Reason = Literal["malformed", "too_large", "too_many"]
Order = Literal["asc", "desc"]

UNKNOWN_TYPE = "application/octet-stream"
_MAX_NAME = 200
_MAX_EXTENSION = 16
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept of one response: up to `max_files` files of up to `max_bytes` each."""

    max_files: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file in a response's output. `kind` and `filename` are what its place there suggests.

    `position` counts the files of the whole response, refused ones included.
    """

    position: int
    item_id: str
    kind: Kind
    filename: str | None
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file in a response's output that is not kept, and why not."""

    position: int
    item_id: str
    kind: Kind
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What is on record of one file. `created_at` is when its response finished."""

    id: str
    response_id: str
    item_id: str
    position: int
    principal: Principal
    kind: Kind
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which artifacts to list. `project` of None means all; `after` is the id of an artifact."""

    project: str | None
    limit: int
    order: Order = "desc"
    response_id: str | None = None
    kind: Kind | None = None
    after: str | None = None


def artifact_id(response_id: str, item_id: str, position: int) -> str:
    """Return the id of a file: the same each time the same response is seen."""
    name = f"{response_id}\n{item_id}\n{position}".encode()
    return f"art_{hashlib.sha256(name).hexdigest()[:32]}"


def blob_key(sha256: str) -> str:
    """Return where the content with this hash (64 hex digits) is stored: one place for all."""
    return f"artifacts/{sha256[:2]}/{sha256}"


def settled_kind(suggested: Kind, content_type: str) -> Kind:
    """Return the kind that the bytes bear out.

    What was called audio stays so when its bytes have no signature, as raw PCM has none.
    """
    if content_type.startswith("image/"):
        return "image"
    if content_type.startswith("audio/"):
        return "audio"
    if suggested == "audio" and content_type == UNKNOWN_TYPE:
        return "audio"
    return "file"


def clean_text(text: str, *, longest: int = _MAX_NAME) -> str:
    """Return `text` without control and formatting characters, cut to `longest` characters."""
    return "".join(char for char in text[: 4 * longest] if char.isprintable())[:longest]


def clean_filename(name: str | None) -> str | None:
    """Return the last part of a path as a name that is safe in a header and on a disk, or None."""
    if not name:
        return None
    base = clean_text(_SEPARATORS.split(name)[-1], longest=4 * _MAX_NAME).strip(" .")
    stem, dot, extension = base.rpartition(".")
    if dot and len(extension) <= _MAX_EXTENSION:
        return f"{stem[: _MAX_NAME - len(extension) - 1]}.{extension}"
    return base[:_MAX_NAME] or None


def default_filename(item_id: str, position: int, extension: str) -> str:
    """Return a name for a file that came without one, such as `ig_123-0.png`."""
    return f"{clean_filename(item_id) or 'artifact'}-{position}.{extension}"
