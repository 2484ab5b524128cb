"""The files that items name: whose they are, and where a worker finds their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson

from contracts.file_parts import file_parts, mask_parts
from contracts.responses import AttachedFile, RunResponseV1
from services.intake.errors import ApiError, invalid

_MARK = b'"file_id"'
_OURS = re.compile(r"file-[0-9a-f]{12}7[0-9a-f]{19}")
_PREVIOUS = "previous_response_id"
Command = TypeVar("Command", bound=RunResponseV1)


class FileDirectory(Protocol):
    """Who knows the files of a project."""

    async def named(self, ids: Sequence[str], *, project: str) -> list[AttachedFile]:
        """Return those of the files that the project has; raises `ApiError` (503)."""
        ...


@dataclass(frozen=True, slots=True)
class Mention:
    """A place where a request, or what precedes it, names a file of ours."""

    file_id: str
    param: str
    is_image: bool


def names_files(body: bytes, history: bytes | None) -> bool:
    """Whether a request may name files: a search of bytes, for all the requests that name none."""
    return _MARK in body or (history is not None and _MARK in history)


@dataclass(frozen=True)
class RequestFiles:
    """Finds the files that requests name; `max_files` mentions and `max_bytes` in one request.

    An id that is not of our making stays as it is: it may name a file at a provider, which judges.
    """

    directory: FileDirectory
    max_files: int
    max_bytes: int

    async def attach(self, command: Command, body: bytes, history: bytes | None) -> Command:
        """Return the command with the files that body and history name.

        Raises `ApiError`: 404 for files that the project does not have, 400, 503.
        """
        mentions = list(_mentions_in_request(orjson.loads(body)))
        if history is not None:
            origin = "conversation" if command.previous_response_id is None else _PREVIOUS
            mentions += _mentions(file_parts(orjson.loads(history)), lambda _: origin)
        found = await self._found(mentions, command.principal.project)
        return command.model_copy(update={"files": list(found.values())}) if found else command

    async def check(self, items: list[dict[str, Any]], *, param: str, project: str) -> None:
        """Refuse items that name files the project does not have; raises `ApiError` as above."""
        mentions = _mentions(file_parts(items), lambda place: f"{param}{place}.file_id")
        await self._found(list(mentions), project)

    async def _found(self, mentions: list[Mention], project: str) -> dict[str, AttachedFile]:
        if not mentions:
            return {}
        if len(mentions) > self.max_files:
            raise _too_much(mentions, f"names more than {self.max_files} files", "too_many_files")
        ids = sorted({mention.file_id for mention in mentions})
        files = {file.file_id: file for file in await self.directory.named(ids, project=project)}
        missing = [mention for mention in mentions if mention.file_id not in files]
        if missing:
            raise _not_found(missing)
        for mention in mentions:
            content_type = files[mention.file_id].content_type
            if mention.is_image and not content_type.startswith("image/"):
                raise invalid(
                    f"Invalid value for '{mention.param}': the file '{mention.file_id}' is no "
                    f"image, but {content_type}.",
                    param=mention.param,
                    code="invalid_value",
                )
        if sum(files[one.file_id].content.size_bytes for one in mentions) > self.max_bytes:
            raise _too_much(
                mentions, f"names files of more than {self.max_bytes} bytes", "files_too_large"
            )
        return files


def _mentions_in_request(document: dict[str, Any]) -> Iterator[Mention]:
    yield from _mentions(file_parts(document.get("input")), lambda at: f"input{at}.file_id")
    yield from _mentions(mask_parts(document.get("tools")), lambda at: f"tools{at}.file_id")


def _mentions(
    parts: Iterable[tuple[str, dict[str, Any]]], param: Callable[[str], str]
) -> Iterator[Mention]:
    for place, part in parts:
        if _OURS.fullmatch(part["file_id"]):
            is_image = part.get("type") != "input_file"
            yield Mention(part["file_id"], param(place), is_image)


def _not_found(missing: list[Mention]) -> ApiError:
    ids = ", ".join(sorted({mention.file_id for mention in missing}))
    param = missing[0].param
    where = "" if param.endswith("file_id") else " They are named by items before this request."
    return ApiError(404, f"Files [{ids}] were not found.{where}", param=param)


def _too_much(mentions: list[Mention], what: str, code: str) -> ApiError:
    return invalid(f"The request {what}.", param=mentions[0].param, code=code)
