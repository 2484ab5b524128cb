"""The HTTP edge of files, reached through intake; and intake's own question about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler

from contracts.responses import AttachedFile, ClaimCheck
from services.artifacts.domain import blob_key
from services.artifacts.downloads import content_response
from services.artifacts.files.domain import File, FileQuery, FormPart, Order
from services.artifacts.files.errors import FilesError, no_such_file, too_large, wrong
from services.artifacts.files.multipart import FormReader
from services.artifacts.files.service import Files
from services.kit.http import Caller, error_response, internal_caller

_MAX_LIMIT = 10_000
_MOST_DIGITS = 9
_FORM_BYTES = 64 * 1024
_MAX_IDS = 1_000
_RETRY_AFTER_SECONDS = 1


class FilesApi:
    """The routes of `/v1/files`. Only services that know the internal token may call them.

    A file belongs to the project of the key that uploaded it, for administrators, too. An upload
    that sends nothing for `idle_seconds` is given up.
    """

    def __init__(self, files: Files, *, token: str, idle_seconds: float) -> None:
        self._files = files
        self._token = token
        self._idle_seconds = idle_seconds

    def routes(self) -> list[BaseRoute]:
        """Return the routes for an application that uses `ERRORS`."""
        return [
            Route("/v1/files", self._list, methods=["GET"]),
            Route("/v1/files", self._create, methods=["POST"]),
            Route("/v1/files/{file}", self._get, methods=["GET"]),
            Route("/v1/files/{file}", self._delete, methods=["DELETE"]),
            Route("/v1/files/{file}/content", self._content, methods=["GET"]),
        ]

    def internal_routes(self) -> list[BaseRoute]:
        """Return the routes that are not forwarded to clients."""
        return [Route("/internal/files", self._named, methods=["POST"])]

    def _caller(self, request: Request) -> Caller:
        return internal_caller(request, token=self._token)

    async def _create(self, request: Request) -> Response:
        caller = self._caller(request)
        limit = self._files.limits.max_bytes
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit + _FORM_BYTES:
            raise too_large(limit)
        reader = FormReader(request.headers.get("content-type", ""))
        async with aclosing(self._form(request, reader)) as form:
            file = await self._files.add(form, project=caller.project, key_id=caller.key_id)
        return JSONResponse(_as_object(file))

    async def _form(self, request: Request, reader: FormReader) -> AsyncGenerator[FormPart, None]:
        chunks = request.stream()
        room = self._files.limits.max_bytes + _FORM_BYTES
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise FilesError("The upload stopped.", status=408, code="timeout") from error
            if chunk is None:
                reader.finish()
                return
            # What is before and behind the parts of a form is nobody's, and may be without end.
            room -= len(chunk)
            if room < 0:
                raise too_large(self._files.limits.max_bytes)
            for part in reader.feed(chunk):
                yield part

    async def _list(self, request: Request) -> Response:
        caller = self._caller(request)
        page = await self._files.page(_query(request, caller))
        data = [_as_object(file) for file in page.files]
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": page.has_more,
            }
        )

    async def _found(self, request: Request) -> File:
        caller = self._caller(request)
        return await self._files.find(_file_id(request), project=caller.project)

    async def _get(self, request: Request) -> Response:
        return JSONResponse(_as_object(await self._found(request)))

    async def _content(self, request: Request) -> Response:
        file = await self._found(request)
        return await content_response(request, file, partial(self._files.open, file))

    async def _delete(self, request: Request) -> Response:
        caller, file_id = self._caller(request), _file_id(request)
        await self._files.delete(file_id, project=caller.project)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def _named(self, request: Request) -> Response:
        """Tell intake what the files with some ids are and where their bytes lie."""
        caller = self._caller(request)
        ids = orjson.loads(await request.body())["ids"][:_MAX_IDS]
        files = await self._files.named(ids, project=caller.project)
        return JSONResponse({"files": [_as_attached(file).model_dump() for file in files]})


def _file_id(request: Request) -> str:
    file_id = str(request.path_params["file"])
    if "\0" in file_id:
        raise no_such_file(file_id)
    return file_id


def _query(request: Request, caller: Caller) -> FileQuery:
    given = dict(request.query_params)
    for name, value in given.items():
        if "\0" in value:
            raise wrong(name, "it contains a NUL.")
    return FileQuery(
        project=caller.project,
        limit=_limit(given.get("limit")),
        order=_order(given.get("order")),
        purpose=given.get("purpose"),
        after=given.get("after"),
    )


def _limit(value: str | None) -> int:
    if value is None:
        return _MAX_LIMIT
    digits = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    if not digits or not 1 <= int(value) <= _MAX_LIMIT:
        raise wrong("limit", f"expected an integer from 1 to {_MAX_LIMIT}.")
    return int(value)


def _order(value: str | None) -> Order:
    if value is None or value == "desc":
        return "desc"
    if value == "asc":
        return "asc"
    raise wrong("order", "expected 'asc' or 'desc'.")


def _as_object(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _as_attached(file: File) -> AttachedFile:
    key = blob_key(file.sha256)
    return AttachedFile(
        file_id=file.id,
        filename=file.filename,
        content_type=file.content_type,
        content=ClaimCheck(key=key, size_bytes=file.size_bytes, sha256=file.sha256),
    )


def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, FilesError):
        return error_response(500, str(error), kind="server_error")
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    response = error_response(
        error.status, str(error), kind=kind, param=error.param, code=error.code
    )
    if error.status == 503:
        response.headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    return response


def _gone(_: Request, _error: Exception) -> Response:
    return Response(status_code=499)


ERRORS: dict[Any, ExceptionHandler] = {FilesError: _refused, ClientDisconnect: _gone}
"""What each error looks like to a client, beside those that all routes of the service share."""
