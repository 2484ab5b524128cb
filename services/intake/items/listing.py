"""Lists of items as the API writes them: what part is wanted, and pages of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.intake.errors import ApiError, invalid
from services.intake.items.item import Identified, listed

INCLUDABLE = frozenset(
    {
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
    }
)
DEFAULT_LIMIT = 20
MAX_LIMIT = 100
_LIMIT_DIGITS = 9


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which part of a list is wanted, and how its items are shown."""

    descending: bool = True
    after: str | None = None
    before: str | None = None
    limit: int = DEFAULT_LIMIT
    include: frozenset[str] = frozenset()


def list_query(parameters: Iterable[tuple[str, str]]) -> ListQuery:
    """Read a list's query parameters; raises `ApiError` (400) about the first wrong one.

    Arrays may be written `include=a&include=b` or, as the official clients do, `include[]=a`.
    """
    given: dict[str, str] = {}
    include: list[str] = []
    for name, value in parameters:
        if name in ("include", "include[]"):
            include.append(value)
        else:
            given[name] = value
    return ListQuery(
        descending=_is_descending(given.get("order", "desc")),
        after=given.get("after"),
        before=given.get("before"),
        limit=_limit(given.get("limit", str(DEFAULT_LIMIT))),
        include=included(include),
    )


def included(values: Sequence[str]) -> frozenset[str]:
    """Return the values of `include`; raises `ApiError` (400) about one that does not exist."""
    for value in values:
        if value not in INCLUDABLE:
            raise invalid(
                f"Invalid value: '{value}'. Supported values are: {_quoted(INCLUDABLE)}.",
                param="include",
                code="invalid_value",
            )
    return frozenset(values)


def _is_descending(order: str) -> bool:
    if order not in ("asc", "desc"):
        raise invalid(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.",
            param="order",
            code="invalid_value",
        )
    return order == "desc"


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > _LIMIT_DIGITS:
        raise invalid(
            "Invalid type for 'limit': expected an integer.", param="limit", code="invalid_type"
        )
    limit = int(value)
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid(
            f"Invalid 'limit': expected a value between 1 and {MAX_LIMIT}, but got {limit}.",
            param="limit",
            code="invalid_value",
        )
    return limit


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


def page(entries: Sequence[Identified], query: ListQuery) -> dict[str, Any]:
    """Return the wanted part of a list that is given whole, oldest first.

    Raises `ApiError` (400) when `after` or `before` name no item of it.
    """
    ordered = list(reversed(entries)) if query.descending else list(entries)
    begin, end = 0, len(ordered)
    if query.after is not None:
        begin = _place(ordered, query.after, "after") + 1
    if query.before is not None:
        end = _place(ordered, query.before, "before")
    rest = ordered[begin:end]
    return list_object(rest[: query.limit], query.include, has_more=len(rest) > query.limit)


def _place(ordered: Sequence[Identified], item_id: str, param: str) -> int:
    for place, entry in enumerate(ordered):
        if entry.item_id == item_id:
            return place
    raise unknown_cursor(item_id, param)


def unknown_cursor(item_id: str, param: str) -> ApiError:
    """Return the 400 for a place in a list that is not there."""
    return invalid(f"Item with id '{item_id}' not found.", param=param, code="invalid_value")


def list_object(
    entries: Sequence[Identified], include: frozenset[str], *, has_more: bool
) -> dict[str, Any]:
    """Return a list as the API writes it; one without items has empty strings for its ends."""
    return {
        "object": "list",
        "data": [listed(entry, include) for entry in entries],
        "first_id": entries[0].item_id if entries else "",
        "last_id": entries[-1].item_id if entries else "",
        "has_more": has_more,
    }
