"""The HTTP edge, reached through intake: lists of artifacts, one artifact, its content."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, TypeVar, get_args

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler

from services.artifacts.domain import Artifact, Kind, Order, Query
from services.artifacts.downloads import content_response
from services.artifacts.errors import (
    ArtifactNotFoundError,
    BadParameterError,
    ContentLostError,
    UnsatisfiableRangeError,
)
from services.artifacts.service import Library
from services.kit.http import Caller, NotInternalError, error_response, internal_caller

logger = logging.getLogger(__name__)
_DEFAULT_LIMIT = 20
_MAX_LIMIT = 100
_MOST_DIGITS = 9
_RETRY_AFTER_SECONDS = 1
Choice = TypeVar("Choice", bound=str)


class Api:
    """The routes of `/v1/artifacts`. Only services that know the internal token may call them."""

    def __init__(self, library: Library, *, token: str) -> None:
        self._library = library
        self._token = token

    def routes(self) -> list[BaseRoute]:
        """Return the routes for an application that uses `ERRORS`."""
        return [
            Route("/v1/artifacts", self._list),
            Route("/v1/artifacts/{artifact}", self._get),
            Route("/v1/artifacts/{artifact}/content", self._content),
        ]

    def _caller(self, request: Request) -> Caller:
        return internal_caller(request, token=self._token)

    async def _list(self, request: Request) -> Response:
        caller = self._caller(request)
        page = await self._library.page(_query(request, caller))
        data = [_as_object(artifact) for artifact in page.artifacts]
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": page.has_more,
            }
        )

    async def _found(self, request: Request) -> Artifact:
        caller = self._caller(request)
        identifier = request.path_params["artifact"]
        if "\0" in identifier:
            raise ArtifactNotFoundError(identifier)
        return await self._library.find(identifier, project=_project(caller))

    async def _get(self, request: Request) -> Response:
        return JSONResponse(_as_object(await self._found(request)))

    async def _content(self, request: Request) -> Response:
        artifact = await self._found(request)
        return await content_response(request, artifact, partial(self._library.open, artifact))


def _project(caller: Caller) -> str | None:
    return None if caller.is_admin else caller.project


def _query(request: Request, caller: Caller) -> Query:
    given = dict(request.query_params)
    for name, value in given.items():
        if "\0" in value:
            raise BadParameterError(name, f"Invalid value for '{name}': it contains a NUL.")
    return Query(
        project=_project(caller),
        limit=_limit(given.get("limit")),
        order=_choice(given.get("order"), "order", get_args(Order)) or "desc",
        response_id=given.get("response_id"),
        kind=_choice(given.get("kind"), "kind", get_args(Kind)),
        after=given.get("after"),
    )


def _limit(value: str | None) -> int:
    if value is None:
        return _DEFAULT_LIMIT
    digits = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    if not digits or not 1 <= int(value) <= _MAX_LIMIT:
        raise BadParameterError(
            "limit", f"Invalid value for 'limit': expected an integer from 1 to {_MAX_LIMIT}."
        )
    return int(value)


def _choice(value: str | None, param: str, choices: tuple[Choice, ...]) -> Choice | None:
    if value is None:
        return None
    for choice in choices:
        if value == choice:
            return choice
    raise BadParameterError(
        param, f"Invalid value for '{param}': expected one of {', '.join(choices)}."
    )


def _as_object(artifact: Artifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "object": "artifact",
        "response_id": artifact.response_id,
        "item_id": artifact.item_id,
        "kind": artifact.kind,
        "filename": artifact.filename,
        "content_type": artifact.content_type,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "created_at": int(artifact.created_at.timestamp()),
    }


def _not_internal(_: Request, _error: Exception) -> Response:
    return error_response(401, "This service answers intake only.", code="invalid_internal_token")


def _not_found(_: Request, error: Exception) -> Response:
    return error_response(404, str(error), code="artifact_not_found")


def _bad_parameter(_: Request, error: Exception) -> Response:
    param = error.param if isinstance(error, BadParameterError) else None
    return error_response(400, str(error), param=param, code="invalid_value")


def _unsatisfiable(_: Request, error: Exception) -> Response:
    response = error_response(416, str(error), code="range_not_satisfiable")
    if isinstance(error, UnsatisfiableRangeError):
        response.headers["content-range"] = f"bytes */{error.size_bytes}"
    return response


def _lost(_: Request, error: Exception) -> Response:
    logger.error("an artifact is on record without its content: %s", error)
    return error_response(500, str(error), kind="server_error", code="content_lost")


def _unavailable(_: Request, error: Exception) -> Response:
    logger.warning("a request failed for want of the database or the blob store: %r", error)
    response = error_response(
        503, "Artifacts are not available at the moment.", kind="server_error", code="unavailable"
    )
    response.headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    return response


def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = error_response(status, str(getattr(error, "detail", "Error")))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


ERRORS: dict[Any, ExceptionHandler] = {
    NotInternalError: _not_internal,
    ArtifactNotFoundError: _not_found,
    BadParameterError: _bad_parameter,
    UnsatisfiableRangeError: _unsatisfiable,
    ContentLostError: _lost,
    OSError: _unavailable,
    DBAPIError: _unavailable,
    PoolTimeoutError: _unavailable,
    HTTPException: _http,
}
"""What each error looks like to a client: the one place that says so."""
