"""The routes beside create: retrieve, resume, cancel, delete and models."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from services.intake.admission.keys import ApiKey, ApiKeys
from services.intake.api.create import DONE, RESUME
from services.intake.api.event_stream import EventStream
from services.intake.clients import ModelList
from services.intake.errors import invalid, model_not_found
from services.intake.kept import KeptResponses
from services.intake.streaming.followers import DrainedError, SlowReaderError
from services.intake.streaming.log_reads import LogRead
from services.intake.streaming.resume import Resumer


class Routes:
    """The handlers of intake's ordinary routes."""

    def __init__(
        self, kept: KeptResponses, resumer: Resumer, keys: ApiKeys, models: ModelList
    ) -> None:
        self._kept = kept
        self._resumer = resumer
        self._keys = keys
        self._models = models

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        one = "/v1/responses/{response_id}"
        return [
            Route(one, self.retrieve, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(one + "/cancel", self.cancel, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.model, methods=["GET"]),
        ]

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`, as a stream with `stream=true`."""
        key = self._caller(request)
        response_id = request.path_params["response_id"]
        if not _flag(request, "stream"):
            return _json(await self._kept.retrieve(response_id, key))
        after = _number(request, "starting_after", default=-1)
        row = await self._kept.find(response_id, key)
        if not row.stream:
            raise invalid(
                "This response was not created with 'stream': true and can't be streamed.",
                param="stream",
            )

        async def body(read: LogRead) -> AsyncIterator[bytes]:
            try:
                async for block in self._resumer.events(row, after=after, read=read):
                    yield block
            except SlowReaderError:
                return
            except DrainedError:
                yield RESUME
                return
            self._kept.reader.note_finished(response_id)
            yield DONE

        return EventStream(body, self._resumer.reads.begin)

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`."""
        key = self._caller(request)
        return _json(await self._kept.cancel(request.path_params["response_id"], key))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`."""
        key = self._caller(request)
        return JSONResponse(await self._kept.delete(request.path_params["response_id"], key))

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: those that the key may ask."""
        key = self._caller(request)
        found = [model for model in await self._models.all() if key.allows(str(model["id"]))]
        return JSONResponse({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        key = self._caller(request)
        name = request.path_params["model"]
        if not key.allows(name):
            raise model_not_found(name)
        return JSONResponse(await self._models.one(name))

    def _caller(self, request: Request) -> ApiKey:
        return self._keys.authenticate(request.headers.get("authorization", ""))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise invalid(f"Invalid value for '{name}': expected a boolean.", param=name)
    return value in ("true", "1")


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise invalid(
            f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type"
        )
    return int(value)
