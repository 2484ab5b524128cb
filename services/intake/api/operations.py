"""The routes of operations: `POST /v1/responses/input_tokens` and `POST /v1/responses/compact`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.intake.accepted import Answer
from services.intake.admission.keys import ApiKey, ApiKeys
from services.intake.admission.seats import Seats
from services.intake.api.create import read_body
from services.intake.operations.service import Operations


class OperationRoutes:
    """The handlers of operations."""

    def __init__(
        self, operations: Operations, keys: ApiKeys, *, max_body_bytes: int, seats: Seats
    ) -> None:
        self._seats = seats
        self._operations = operations
        self._keys = keys
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the routes; they stand before those with an id in the same place."""
        return [
            Route("/v1/responses/input_tokens", self.count_input_tokens, methods=["POST"]),
            Route("/v1/responses/compact", self.compact, methods=["POST"]),
        ]

    async def count_input_tokens(self, request: Request) -> Response:
        """`POST /v1/responses/input_tokens`."""
        return await self._answered(request, self._operations.count_input_tokens)

    async def compact(self, request: Request) -> Response:
        """`POST /v1/responses/compact`."""
        return await self._answered(request, self._operations.compact)

    async def _answered(
        self, request: Request, operation: Callable[[bytes, ApiKey], Awaitable[Answer]]
    ) -> Response:
        key = self._keys.authenticate(request.headers.get("authorization", ""))
        seat = self._seats.take(key.key_id)
        try:
            body = await read_body(
                request.scope, request.receive, limit=self._max_body_bytes, seat=seat
            )
            answer = await operation(body, key)
        finally:
            seat.leave()
        response = Response(answer.body, answer.status, media_type="application/json")
        response.raw_headers.extend(answer.headers)
        return response
