"""Bodies and queries of the API, read strictly: what is not known is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import orjson

from services.kit.http import Caller
from services.webhooks.domain.endpoints import STATES, Responses
from services.webhooks.domain.events import EVENT_TYPES, EventType
from services.webhooks.errors import NotAdminError, ParameterError
from services.webhooks.service import DeliveryQuery, Wish

Choice = TypeVar("Choice", bound=str)
MAX_BODY_BYTES = 64 * 1024
_MAX_NAME = 200
_MAX_PROJECT = 64
_MAX_ID = 200
_DEFAULT_LIMIT = 20
_MAX_LIMIT = 100
_MOST_DIGITS = 9
_WISHES = ("name", "url", "event_types", "responses", "enabled")


def read_object(body: bytes, known: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object of a body, an empty one for none; raises `ParameterError`."""
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise ParameterError("body", "The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ParameterError("body", "The body must be a JSON object.", code="invalid_type")
    for name in value:
        if name not in known:
            raise ParameterError(name, f"Unknown parameter: '{name}'.", code="unknown_parameter")
    return value


def wish(body: bytes, *, creating: bool) -> Wish:
    """Return what a body wants an endpoint to be; `creating` needs a URL."""
    given = read_object(body, _WISHES)
    if creating and given.get("url") is None:
        raise _missing("url")
    return Wish(
        name=_text(given, "name", most=_MAX_NAME),
        # Its length is for the rules on URLs to judge.
        url=_text(given, "url", most=MAX_BODY_BYTES),
        event_types=_event_types(given.get("event_types")),
        responses=_choice(given.get("responses"), "responses", get_args(Responses)),
        enabled=_flag(given, "enabled"),
    )


def keep_old_secret(body: bytes) -> bool:
    """Return whether a rotation leaves the old secret in force for a day."""
    name = "keep_old_secret_active_for_24_hours"
    return _flag(read_object(body, (name,)), name) or False


def tested_event(body: bytes) -> EventType | None:
    """Return the type of the sample event, None for the endpoint's first one."""
    given = read_object(body, ("event_type",))
    return _choice(given.get("event_type"), "event_type", EVENT_TYPES)


def project_of(caller: Caller, query: Mapping[str, str]) -> str:
    """Return whose endpoints are meant; raises `NotAdminError` for all but administrators.

    Administrators manage those of their key's project, or of the one that the query names.
    """
    if not caller.is_admin:
        raise NotAdminError("Webhooks are managed with keys that have the scope 'admin'.")
    named = query.get("project")
    if named is None:
        return caller.project
    plain = named.replace("_", "").replace("-", "")
    if not (plain.isascii() and plain.isalnum()) or len(named) > _MAX_PROJECT:
        raise ParameterError(
            "project",
            "Invalid value for 'project': expected letters, digits, '_' and '-', "
            f"{_MAX_PROJECT} at most.",
        )
    return named


def page_of(query: Mapping[str, str]) -> tuple[int, str | None]:
    """Return the limit and the id that the page comes after."""
    _only_known(query, ("limit", "after", "project"))
    return _limit(query.get("limit")), _identifier(query, "after")


def delivery_query(query: Mapping[str, str]) -> DeliveryQuery:
    """Return which deliveries are asked for."""
    _only_known(query, ("limit", "after", "project", "status", "response_id"))
    return DeliveryQuery(
        limit=_limit(query.get("limit")),
        after=_identifier(query, "after"),
        state=_choice(query.get("status"), "status", STATES),
        response_id=_identifier(query, "response_id"),
    )


def only_project(query: Mapping[str, str]) -> None:
    """Refuse every query parameter but the project."""
    _only_known(query, ("project",))


def _only_known(query: Mapping[str, str], known: Sequence[str]) -> None:
    for name in query:
        if name not in known:
            raise ParameterError(name, f"Unknown parameter: '{name}'.", code="unknown_parameter")


def _limit(value: str | None) -> int:
    if value is None:
        return _DEFAULT_LIMIT
    digits = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    if not digits or not 1 <= int(value) <= _MAX_LIMIT:
        raise ParameterError(
            "limit", f"Invalid value for 'limit': expected an integer from 1 to {_MAX_LIMIT}."
        )
    return int(value)


def _identifier(query: Mapping[str, str], name: str) -> str | None:
    value = query.get(name)
    if value is not None and ("\0" in value or not 0 < len(value) <= _MAX_ID):
        raise ParameterError(name, f"Invalid value for '{name}': expected an id.")
    return value


def _text(given: Mapping[str, Any], name: str, *, most: int) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(name, "a string")
    if not value or len(value) > most:
        raise ParameterError(name, f"Invalid value for '{name}': expected 1 to {most} characters.")
    if "\0" in value:
        raise ParameterError(name, f"Invalid value for '{name}': it contains a NUL.")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool | None:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong_type(name, "a boolean")
    return value


def _event_types(value: object) -> tuple[EventType, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _wrong_type("event_types", "an array of strings")
    if not value:
        raise ParameterError(
            "event_types", "Invalid value for 'event_types': expected at least one."
        )
    chosen = set()
    for place, one in enumerate(value):
        if one is None:
            raise _wrong_type(f"event_types[{place}]", "a string")
        chosen.add(_choice(one, f"event_types[{place}]", EVENT_TYPES))
    return tuple(event_type for event_type in EVENT_TYPES if event_type in chosen)


def _choice(value: object, param: str, choices: Sequence[Choice]) -> Choice | None:
    if value is None:
        return None
    for choice in choices:
        if value == choice:
            return choice
    listed = ", ".join(f"'{choice}'" for choice in choices)
    raise ParameterError(param, f"Invalid value for '{param}': expected one of {listed}.")


def _missing(name: str) -> ParameterError:
    return ParameterError(
        name, f"Missing required parameter: '{name}'.", code="missing_required_parameter"
    )


def _wrong_type(name: str, expected: str) -> ParameterError:
    return ParameterError(
        name, f"Invalid type for '{name}': expected {expected}.", code="invalid_type"
    )
