"""The routes of API keys, for administrators."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from contracts.config import ApiKeyChangedV1, Scope
from services.intake.admission.keys import DEFAULT_PROJECT, ApiKeys
from services.intake.api.create import read_body
from services.intake.body import parse_json
from services.intake.errors import ApiError, invalid
from services.intake.request import explain
from services.kit.clock import Clock

_BODY_BYTES = 64 * 1024
_MOST_MODELS = 200
_MOST_PER_PAGE = 1_000
_MOST_DIGITS = 9
_LARGEST_LIMIT = 1_000_000_000
_LATEST_SECONDS = 253_402_300_799
"""The last second of the year 9999, which the calendar ends with."""


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("nothing may stand there twice")
    return values


def _name_or_prefix(value: str) -> str:
    if "*" in value[:-1]:
        raise ValueError("'*' may only end a name")
    return value


# Users are columns of every database behind, and no text of theirs holds a NUL.
_User = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Scopes = Annotated[list[Scope], Field(min_length=1), AfterValidator(_distinct)]
_Model = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_name_or_prefix)]
_Models = Annotated[
    list[_Model], Field(min_length=1, max_length=_MOST_MODELS), AfterValidator(_distinct)
]
_Limit = Annotated[int, Field(ge=1, le=_LARGEST_LIMIT)]
_Seconds = Annotated[int, Field(ge=0, le=_LATEST_SECONDS)]


class KeyUpdate(BaseModel):
    """The body of `POST /v1/keys/{id}`: what is left out stays, null takes a bound away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name = ""
    user: _User | None = None
    scopes: _Scopes = ["api"]
    expires_at: _Seconds | None = None
    allowed_models: _Models | None = None
    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the body has, as a key's record has it."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        for name in ("scopes", "allowed_models"):
            if given.get(name) is not None:
                given[name] = tuple(given[name])
        if given.get("expires_at") is not None:
            given["expires_at"] = datetime.fromtimestamp(given["expires_at"], UTC)
        return given


class NewKey(KeyUpdate):
    """The body of `POST /v1/keys`."""

    name: _Name
    project: str = Field(DEFAULT_PROJECT, pattern=r"^[A-Za-z0-9_-]{1,64}$")


class Rotation(BaseModel):
    """The body of `POST /v1/keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_seconds: int = Field(0, ge=0)


_Body = TypeVar("_Body", bound=BaseModel)


class KeyRoutes:
    """The handlers of `/v1/keys`; each error has a code."""

    def __init__(self, keys: ApiKeys, clock: Clock, *, max_grace_seconds: int) -> None:
        self._keys = keys
        self._clock = clock
        self._max_grace_seconds = max_grace_seconds

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        one = "/v1/keys/{key_id}"
        return [
            Route("/v1/keys", self.list, methods=["GET"]),
            Route("/v1/keys", self.create, methods=["POST"]),
            Route(one, self.retrieve, methods=["GET"]),
            Route(one, self.update, methods=["POST"]),
            Route(one, self.revoke, methods=["DELETE"]),
            Route(one + "/rotate", self.rotate, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """`GET /v1/keys`: the oldest first, revoked ones included."""
        self._admin(request)
        asked = request.query_params
        limit = asked.get("limit", str(_MOST_PER_PAGE))
        digits = limit.isascii() and limit.isdigit() and len(limit) <= _MOST_DIGITS
        if not digits or not 1 <= int(limit) <= _MOST_PER_PAGE:
            raise invalid(
                f"Invalid value for 'limit': expected an integer from 1 to {_MOST_PER_PAGE}.",
                param="limit",
                code="invalid_value",
            )
        project = asked.get("project")
        found = [r for r in self._keys.list() if project is None or r.project == project]
        if (after := asked.get("after")) is not None:
            places = [place for place, record in enumerate(found) if record.key_id == after]
            if not places:
                raise invalid(
                    f"Invalid value for 'after': no key '{after}' in this list.",
                    param="after",
                    code="invalid_value",
                )
            found = found[places[0] + 1 :]
        page = [self._object(record) for record in found[: int(limit)]]
        return JSONResponse(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(found) > len(page),
            }
        )

    async def create(self, request: Request) -> Response:
        """`POST /v1/keys`; beside rotating the only answer that has the secret."""
        self._admin(request)
        new = await _body(request, NewKey)
        fields = {"project": DEFAULT_PROJECT, **new.fields()}
        record, secret = await self._keys.create(**fields)
        return JSONResponse({**self._object(record), "key": secret})

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/keys/{id}`."""
        self._admin(request)
        return JSONResponse(self._object(self._keys.get(request.path_params["key_id"])))

    async def update(self, request: Request) -> Response:
        """`POST /v1/keys/{id}`."""
        self._admin(request)
        key_id = request.path_params["key_id"]
        fields = (await _body(request, KeyUpdate)).fields()
        record = await self._keys.update(key_id, fields) if fields else self._keys.get(key_id)
        return JSONResponse(self._object(record))

    async def rotate(self, request: Request) -> Response:
        """`POST /v1/keys/{id}/rotate`; the body may be left out."""
        self._admin(request)
        asked = await _body(request, Rotation, empty=True)
        if asked.grace_seconds > self._max_grace_seconds:
            raise invalid(
                f"Invalid value for 'grace_seconds': at most {self._max_grace_seconds}.",
                param="grace_seconds",
                code="invalid_value",
            )
        record, secret = await self._keys.rotate(
            request.path_params["key_id"], grace_seconds=asked.grace_seconds
        )
        return JSONResponse({**self._object(record), "key": secret})

    async def revoke(self, request: Request) -> Response:
        """`DELETE /v1/keys/{id}`."""
        self._admin(request)
        return JSONResponse(self._object(await self._keys.revoke(request.path_params["key_id"])))

    def _admin(self, request: Request) -> None:
        key = self._keys.authenticate(request.headers.get("authorization", ""))
        if not key.is_admin:
            raise ApiError(403, "This needs a key with the scope 'admin'.", code="missing_scope")

    def _object(self, record: ApiKeyChangedV1) -> dict[str, Any]:
        return {
            "id": record.key_id,
            "object": "api_key",
            "status": self._status(record),
            "name": record.name,
            "prefix": record.prefix,
            "project": record.project,
            "user": record.user,
            "scopes": list(record.scopes),
            "allowed_models": None if record.allowed_models is None else [*record.allowed_models],
            "requests_per_minute": record.requests_per_minute,
            "tokens_per_minute": record.tokens_per_minute,
            "created_at": int(record.created_at.timestamp()),
            "expires_at": _seconds(record.expires_at),
            "rotated_at": _seconds(record.rotated_at),
            "replaced_key_expires_at": (
                _seconds(record.replaced[0].expires_at) if record.replaced else None
            ),
            "revoked_at": _seconds(record.revoked_at),
        }

    def _status(self, record: ApiKeyChangedV1) -> str:
        if record.revoked_at is not None:
            return "revoked"
        expired = record.expires_at is not None and record.expires_at <= self._clock.now()
        return "expired" if expired else "active"


async def _body(request: Request, model: type[_Body], *, empty: bool = False) -> _Body:
    """Return the validated body; raises `ApiError` (400, 413). It may be `empty` where it says."""
    raw = await read_body(request.scope, request.receive, limit=_BODY_BYTES)
    body = parse_json(raw) if raw or not empty else {}
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", param=None, code="invalid_type")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        unknown = body.keys() - model.model_fields.keys()
        if unknown:
            name = min(unknown)
            raise invalid(
                f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter"
            ) from error
        raise explain(error, body) from error


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
