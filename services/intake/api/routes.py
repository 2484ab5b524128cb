"""The routes beside create: retrieve, resume, cancel, delete, models and keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from contracts.config import ApiKeyChangedV1, Scope
from services.intake.api.create import DONE, read_body
from services.intake.clients import ModelList
from services.intake.errors import ApiError, invalid
from services.intake.keys import DEFAULT_PROJECT, ApiKey, ApiKeys
from services.intake.resume import Resumer
from services.intake.service import Responses
from services.intake.streams import SlowReaderError

_KEY_BODY_BYTES = 64 * 1024


class NewKey(BaseModel):
    """The body of `POST /v1/keys`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=200)
    project: str = Field(DEFAULT_PROJECT, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    user: str | None = Field(None, max_length=256)
    scopes: list[Scope] = Field(["api"], min_length=1)
    expires_at: int | None = Field(None, description="seconds since the epoch")

    @model_validator(mode="after")
    def _distinct(self) -> NewKey:
        if len(set(self.scopes)) != len(self.scopes):
            raise ValueError("scopes must not repeat")
        return self


class Routes:
    """The handlers of intake's ordinary routes."""

    def __init__(
        self, responses: Responses, resumer: Resumer, keys: ApiKeys, models: ModelList
    ) -> None:
        self._responses = responses
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
            Route("/v1/keys", self.list_keys, methods=["GET"]),
            Route("/v1/keys", self.create_key, methods=["POST"]),
            Route("/v1/keys/{key_id}", self.revoke_key, methods=["DELETE"]),
        ]

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`, as a stream with `stream=true`."""
        key = self._caller(request)
        response_id = request.path_params["response_id"]
        if not _flag(request, "stream"):
            return _json(await self._responses.retrieve(response_id, key))
        after = _number(request, "starting_after", default=-1)
        row = await self._responses.find(response_id, key)
        if not row.stream:
            raise invalid(
                "This response was not created with 'stream': true and can't be streamed.",
                param="stream",
            )

        async def body() -> AsyncIterator[bytes]:
            try:
                async for block in self._resumer.events(row, after=after):
                    yield block
            except SlowReaderError:
                return
            self._responses.reader.note_finished(response_id)
            yield DONE

        return StreamingResponse(
            body(),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`."""
        key = self._caller(request)
        return _json(await self._responses.cancel(request.path_params["response_id"], key))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`."""
        key = self._caller(request)
        return JSONResponse(await self._responses.delete(request.path_params["response_id"], key))

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        self._caller(request)
        return JSONResponse({"object": "list", "data": await self._models.all()})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        self._caller(request)
        return JSONResponse(await self._models.one(request.path_params["model"]))

    async def list_keys(self, request: Request) -> Response:
        """`GET /v1/keys`, for administrators."""
        self._admin(request)
        return JSONResponse({"object": "list", "data": [_key(r) for r in self._keys.list()]})

    async def create_key(self, request: Request) -> Response:
        """`POST /v1/keys`, for administrators; the only answer that has the secret."""
        self._admin(request)
        try:
            raw = await read_body(request.scope, request.receive, limit=_KEY_BODY_BYTES)
            new = NewKey.model_validate(orjson.loads(raw))
            expires_at = None
            if new.expires_at is not None:
                expires_at = datetime.fromtimestamp(new.expires_at).astimezone()
        except orjson.JSONDecodeError as error:
            raise invalid(f"The body is no JSON: {error}.", param=None) from error
        except (ValueError, OverflowError, OSError) as error:
            raise _bad_key(error) from error
        record, secret = await self._keys.create(
            name=new.name,
            project=new.project,
            user=new.user,
            scopes=tuple(new.scopes),
            expires_at=expires_at,
        )
        return JSONResponse({**_key(record), "key": secret})

    async def revoke_key(self, request: Request) -> Response:
        """`DELETE /v1/keys/{id}`, for administrators."""
        self._admin(request)
        return JSONResponse(_key(await self._keys.revoke(request.path_params["key_id"])))

    def _caller(self, request: Request) -> ApiKey:
        return self._keys.authenticate(request.headers.get("authorization", ""))

    def _admin(self, request: Request) -> ApiKey:
        key = self._caller(request)
        if not key.is_admin:
            raise ApiError(403, "This needs a key with the scope 'admin'.", code="missing_scope")
        return key


def _bad_key(error: Exception) -> ApiError:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        return invalid(f"Invalid value for '{param}': {first['msg']}.", param=param)
    return invalid("'expires_at' is no time.", param="expires_at")


def _key(record: ApiKeyChangedV1) -> dict[str, Any]:
    return {
        "id": record.key_id,
        "object": "api_key",
        "name": record.name,
        "prefix": record.prefix,
        "project": record.project,
        "user": record.user,
        "scopes": list(record.scopes),
        "created_at": int(record.created_at.timestamp()),
        "expires_at": _seconds(record.expires_at),
        "revoked_at": _seconds(record.revoked_at),
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


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
    if not value.isdigit() or len(value) > 15:
        raise invalid(
            f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type"
        )
    return int(value)
