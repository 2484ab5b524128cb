"""What an uploaded file is, and what may be said about it when it is uploaded. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from services.artifacts.domain import clean_filename
from services.artifacts.files.errors import FilesError, missing, wrong

Order = Literal["asc", "desc"]

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_NAMELESS = "upload"
_SHORTEST_SECONDS, _LONGEST_SECONDS = 3_600, 2_592_000
_MOST_DIGITS = 9
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = frozenset({"purpose", _ANCHOR, _SECONDS})
_ESCAPES = (("%22", '"'), ("%0D", ""), ("%0A", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What is on record of an uploaded file."""

    id: str
    project: str
    key_id: str
    purpose: str
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuery:
    """Which files of a project to list; `after` is the id of a file."""

    project: str
    limit: int
    order: Order = "desc"
    purpose: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How large a file may be, how many uploads may be open, how long files for batches stay."""

    max_bytes: int
    max_open: int
    batch_files_expire: timedelta


@dataclass(frozen=True, slots=True)
class FormField:
    """A field of an upload's form."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileBegins:
    """The file's own part of the form begins: what follows are its bytes."""

    filename: str | None


FormPart = FormField | FileBegins | bytes


@dataclass(slots=True)
class Terms:
    """What the form says beside the bytes; fields may come before and after them."""

    filename: str | None = None
    _values: dict[str, str] = field(default_factory=dict)

    def take(self, given: FormField) -> None:
        """Note a field; raises `FilesError` when it is unknown, repeated or wrong."""
        if given.name == "file":
            raise FilesError(
                "Invalid type for 'file': expected a file, but got text instead.",
                param="file",
                code="invalid_type",
            )
        if given.name not in _FIELDS:
            raise FilesError(
                f"Unknown parameter: '{given.name}'.", param=given.name, code="unknown_parameter"
            )
        if given.name in self._values:
            raise wrong(given.name, "it is given twice.")
        _CHECKS[given.name](given.value)
        self._values[given.name] = given.value

    def begin(self, given: FileBegins) -> None:
        """Note the file's name; raises `FilesError` for a second file."""
        if self.filename is not None:
            raise wrong("file", "there are two files.")
        name = given.filename or ""
        for escape, character in _ESCAPES:
            name = name.replace(escape, character)
        self.filename = clean_filename(name) or _NAMELESS

    def settled(
        self, now: datetime, *, batch_files_expire: timedelta
    ) -> tuple[str, str, datetime | None]:
        """Return name, purpose and end of the file; raises `FilesError` for what is missing."""
        if self.filename is None:
            raise missing("file")
        if "purpose" not in self._values:
            raise missing("purpose")
        purpose = self._values["purpose"]
        if (_ANCHOR in self._values) != (_SECONDS in self._values):
            raise missing(f"expires_after.{'seconds' if _ANCHOR in self._values else 'anchor'}")
        if _SECONDS in self._values:
            return self.filename, purpose, now + timedelta(seconds=int(self._values[_SECONDS]))
        return self.filename, purpose, now + batch_files_expire if purpose == "batch" else None


def _check_purpose(value: str) -> None:
    if value not in PURPOSES:
        raise wrong("purpose", f"expected one of {', '.join(PURPOSES)}.")


def _check_anchor(value: str) -> None:
    if value != "created_at":
        raise wrong("expires_after.anchor", "expected 'created_at'.")


def _check_seconds(value: str) -> None:
    digits = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    if not digits or not _SHORTEST_SECONDS <= int(value) <= _LONGEST_SECONDS:
        raise wrong(
            "expires_after.seconds",
            f"expected an integer from {_SHORTEST_SECONDS} to {_LONGEST_SECONDS}.",
        )


_CHECKS = {"purpose": _check_purpose, _ANCHOR: _check_anchor, _SECONDS: _check_seconds}
