"""Query parameters of the HTTP edge to queries; every mistake names its parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from services.costs.domain.reports import (
    FILTERS,
    GROUPS,
    MAX_OFFSET,
    MAX_PAGE,
    LinesQuery,
    ReportQuery,
    visible_project,
)
from services.costs.errors import ParameterError
from services.kit.http import Caller

_REPORT = frozenset(
    {"group_by", "group_by[]", "start", "end", "project", "limit", "page", *FILTERS}
)
_LINES = frozenset({"response_id", "project", "after", "limit"})
_DEFAULT_PAGE = 100
_MAX_VALUE_CHARACTERS = 512

Parameters = Sequence[tuple[str, str]]


def report_query(parameters: Parameters, caller: Caller) -> ReportQuery:
    """Parse `GET /v1/costs`; raises `ParameterError` and `ProjectHiddenError`."""
    values = _single(parameters, _REPORT)
    start, end = _time(values, "start"), _time(values, "end")
    if start is not None and end is not None and start >= end:
        raise ParameterError("end", "end must be later than start")
    return ReportQuery(
        group_by=_groups(value for name, value in parameters if name.startswith("group_by")),
        project=_project(values, caller),
        start=start,
        end=end,
        filters={name: values[name] for name in FILTERS if name in values},
        limit=_number(values, "limit", default=_DEFAULT_PAGE, least=1, most=MAX_PAGE),
        offset=_number(values, "page", default=0, least=0, most=MAX_OFFSET),
    )


def lines_query(parameters: Parameters, caller: Caller) -> LinesQuery:
    """Parse `GET /v1/costs/lines`; raises `ParameterError` and `ProjectHiddenError`."""
    values = _single(parameters, _LINES)
    if "response_id" not in values:
        raise ParameterError("response_id", "response_id is required")
    return LinesQuery(
        response_id=values["response_id"],
        project=_project(values, caller),
        after=values.get("after"),
        limit=_number(values, "limit", default=_DEFAULT_PAGE, least=1, most=MAX_PAGE),
    )


def _single(parameters: Parameters, known: frozenset[str]) -> dict[str, str]:
    for name, value in parameters:
        if name not in known:
            raise ParameterError(
                name[:64], f"unknown parameter; known are {', '.join(sorted(known))}"
            )
        if not value or len(value) > _MAX_VALUE_CHARACTERS or not value.isprintable():
            raise ParameterError(
                name, f"{name} must have 1 to {_MAX_VALUE_CHARACTERS} printable characters"
            )
    return dict(parameters)


def _project(values: dict[str, str], caller: Caller) -> str | None:
    return visible_project(values.get("project"), own=caller.project, is_admin=caller.is_admin)


def _groups(values: Iterable[str]) -> tuple[str, ...]:
    asked = [name.strip() for value in values for name in value.split(",")] or ["model"]
    for name in asked:
        if name not in GROUPS:
            raise ParameterError("group_by", f"can't group by {name!r}; use {', '.join(GROUPS)}")
    return tuple(dict.fromkeys(asked))


def _time(values: dict[str, str], name: str) -> datetime | None:
    """Read RFC 3339, a date (its midnight in UTC), or seconds since the epoch."""
    value = values.get(name)
    if value is None:
        return None
    try:
        if value.isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
        moment = datetime.fromisoformat(value)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ParameterError(
            name, f"{name} must be a date, an RFC 3339 time or seconds since the epoch"
        ) from error


def _number(values: dict[str, str], name: str, *, default: int, least: int, most: int) -> int:
    value = values.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal()) or not least <= int(value) <= most:
        raise ParameterError(name, f"{name} must be a whole number from {least} to {most}")
    return int(value)
