"""The HTTP edge, reached through intake: endpoints as the OpenAI API has them, and deliveries."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler

from services.kit.clock import Clock
from services.kit.http import NotInternalError, error_response, internal_caller
from services.kit.ids import new_id, uuid7_hex
from services.webhooks import parameters
from services.webhooks.domain.endpoints import Endpoint
from services.webhooks.domain.events import EVENT_TYPES
from services.webhooks.errors import (
    DeliveryNotFoundError,
    EndpointNotFoundError,
    NotAdminError,
    ParameterError,
    SecretLostError,
    TooManyEndpointsError,
    UndeliveredError,
)
from services.webhooks.service import Registry
from services.webhooks.views import delivery_object, endpoint_object, page

logger = logging.getLogger(__name__)
PREFIXES = ("/v1/webhook_endpoints", "/v1/webhooks")
"""The path of the OpenAI API, and a short name for the same."""
_RETRY_AFTER_SECONDS = 1


class Api:
    """The routes for endpoints. Only services that know the internal token may call them."""

    def __init__(
        self, registry: Registry, clock: Clock, *, token: str, wake: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._token = token
        self._wake = wake

    def routes(self) -> list[BaseRoute]:
        """Return the routes for an application that uses `ERRORS`."""
        found: list[BaseRoute] = [Route("/v1/webhook_event_types", self._event_types)]
        for prefix in PREFIXES:
            one = prefix + "/{endpoint}"
            found += [
                Route(prefix, self._list),
                Route(prefix, self._create, methods=["POST"]),
                Route(one, self._get),
                Route(one, self._update, methods=["POST"]),
                Route(one, self._delete, methods=["DELETE"]),
                Route(one + "/rotate_secret", self._rotate, methods=["POST"]),
                Route(one + "/test", self._test, methods=["POST"]),
                Route(one + "/deliveries", self._deliveries),
                Route(one + "/deliveries/{delivery}/retry", self._resend, methods=["POST"]),
            ]
        return found

    def _project(self, request: Request) -> str:
        caller = internal_caller(request, token=self._token)
        return parameters.project_of(caller, request.query_params)

    async def _event_types(self, request: Request) -> Response:
        self._project(request)
        parameters.only_project(request.query_params)
        return JSONResponse({"object": "list", "data": list(EVENT_TYPES)})

    async def _list(self, request: Request) -> Response:
        project = self._project(request)
        limit, after = parameters.page_of(request.query_params)
        found = await self._registry.page(project=project, limit=limit, after=after)
        return _listed([endpoint_object(one) for one in found], limit)

    async def _create(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        wish = parameters.wish(await _body(request), creating=True)
        now = self._clock.now()
        new = Endpoint(
            id=new_id("we"),
            project=project,
            name=wish.name or "",
            url=wish.url or "",
            event_types=wish.event_types or EVENT_TYPES,
            responses=wish.responses or "background",
            enabled=wish.enabled is not False,
            disabled_reason="disabled by hand" if wish.enabled is False else None,
            secret="",
            secret_hint="",
            old_secret=None,
            old_secret_until=None,
            failures=0,
            paused_until=None,
            created_at=now,
            updated_at=now,
        )
        endpoint, secret = await self._registry.create(new)
        return JSONResponse({**endpoint_object(endpoint), "signing_secret": secret})

    async def _get(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        return JSONResponse(
            endpoint_object(await self._registry.find(_id(request), project=project))
        )

    async def _update(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        wish = parameters.wish(await _body(request), creating=False)
        endpoint = await self._registry.update(
            _id(request), wish, project=project, at=self._clock.now()
        )
        self._wake()
        return JSONResponse(endpoint_object(endpoint))

    async def _delete(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        endpoint_id = _id(request)
        await self._registry.remove(endpoint_id, project=project)
        return JSONResponse(
            {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}
        )

    async def _rotate(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        keep_old = parameters.keep_old_secret(await _body(request))
        endpoint, secret = await self._registry.rotate_secret(
            _id(request), project=project, keep_old=keep_old, at=self._clock.now()
        )
        return JSONResponse({**endpoint_object(endpoint), "signing_secret": secret})

    async def _test(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        event_type = parameters.tested_event(await _body(request))
        endpoint_id = _id(request)
        result = await self._registry.test(
            endpoint_id,
            event_type,
            project=project,
            message_id=uuid7_hex(),
            at=self._clock.now(),
        )
        return JSONResponse(
            {
                "object": "webhook_endpoint.test",
                "webhook_endpoint_id": endpoint_id,
                "event_type": result.event_type,
                "status_code": result.status_code,
                "success": True,
            }
        )

    async def _deliveries(self, request: Request) -> Response:
        project = self._project(request)
        query = parameters.delivery_query(request.query_params)
        found = await self._registry.deliveries(_id(request), query, project=project)
        return _listed([delivery_object(one) for one in found], query.limit)

    async def _resend(self, request: Request) -> Response:
        project = self._project(request)
        parameters.only_project(request.query_params)
        delivery = await self._registry.resend(
            _id(request),
            _path(request, "delivery", DeliveryNotFoundError),
            project=project,
            at=self._clock.now(),
        )
        self._wake()
        return JSONResponse(delivery_object(delivery))


async def _body(request: Request) -> bytes:
    # Intake bounds a body before it forwards it; this bound is for what else has the token.
    size = request.headers.get("content-length", "0")
    body = b"" if int(size) > parameters.MAX_BODY_BYTES else await request.body()
    if int(size) > parameters.MAX_BODY_BYTES or len(body) > parameters.MAX_BODY_BYTES:
        raise ParameterError(
            "body",
            f"The body has more than {parameters.MAX_BODY_BYTES} bytes.",
            code="request_too_large",
        )
    return body


def _id(request: Request) -> str:
    return _path(request, "endpoint", EndpointNotFoundError)


def _path(request: Request, name: str, missing: Callable[[str], Exception]) -> str:
    value: str = request.path_params[name]
    if "\0" in value:
        raise missing(value)
    return value


def _listed(found: Sequence[dict[str, Any]], limit: int) -> Response:
    return JSONResponse(page(found, limit))


def _refusal(status: int, code: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_: Request, error: Exception) -> Response:
        return error_response(status, str(error), code=code)

    return answer


async def _parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, ParameterError)
    status = 413 if error.code == "request_too_large" else 400
    return error_response(status, str(error), param=error.param, code=error.code)


async def _stranger(_: Request, _error: Exception) -> Response:
    return error_response(401, "This service answers intake only.", code="invalid_internal_token")


async def _undelivered(_: Request, error: Exception) -> Response:
    # Not a 5xx: clients would send the test again by themselves.
    return error_response(
        400, f"The test event was not delivered: {error}.", code="webhook_undelivered"
    )


async def _unavailable(_: Request, error: Exception) -> Response:
    logger.warning("a request failed for want of the database: %r", error)
    response = error_response(
        503, "Webhooks are not available at the moment.", kind="server_error", code="unavailable"
    )
    response.headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    return response


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = error_response(status, str(getattr(error, "detail", "Error")))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


ERRORS: dict[Any, ExceptionHandler] = {
    NotInternalError: _stranger,
    NotAdminError: _refusal(403, "missing_scope"),
    EndpointNotFoundError: _refusal(404, "webhook_endpoint_not_found"),
    DeliveryNotFoundError: _refusal(404, "webhook_delivery_not_found"),
    TooManyEndpointsError: _refusal(400, "too_many_webhook_endpoints"),
    SecretLostError: _refusal(400, "signing_secret_lost"),
    ParameterError: _parameter,
    UndeliveredError: _undelivered,
    OSError: _unavailable,
    DBAPIError: _unavailable,
    PoolTimeoutError: _unavailable,
    HTTPException: _http,
}
"""What each error looks like to a client: the one place that says so."""
