"""Items as the API lists them: their ids, the fields it always fills, and pages of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.intake.errors import invalid

Item = dict[str, Any]

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
MAX_ID_LENGTH = 256
_LIMIT_DIGITS = 9
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "compaction": "cmp",
}
_WITHOUT_STATUS = frozenset(
    {
        "additional_tools",
        "compaction",
        "configuration_update",
        "item_reference",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "reasoning",
    }
)


@dataclass(frozen=True, slots=True)
class Identified:
    """An item under the id that lists and lookups know it by."""

    item_id: str
    item: Item


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which part of a list is wanted, and how its items are shown."""

    descending: bool = True
    after: str | None = None
    before: str | None = None
    limit: int = DEFAULT_LIMIT
    include: frozenset[str] = frozenset()


def type_of(item: Item) -> str:
    """Return an item's type; an item that only has a role is a message."""
    kind = item.get("type")
    return kind if isinstance(kind, str) else "message"


def usable_id(value: object) -> bool:
    """Whether an id that came from outside can name an item."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and "\0" not in value


def identified(items: Iterable[Item], owner: str) -> list[Identified]:
    """Return items with their ids; those without get one that follows from owner and position.

    `owner` is the id of the response (or of the call that added items) and `items` are all of its
    items from the first on, so that the same item gets the same id wherever it is listed.
    """
    return [
        Identified(item["id"] if usable_id(item.get("id")) else _made_id(item, owner, index), item)
        for index, item in enumerate(items)
    ]


def _made_id(item: Item, owner: str, position: int) -> str:
    digest = hashlib.sha256(f"{owner}/{position}".encode()).hexdigest()
    return f"{_PREFIXES.get(type_of(item), 'item')}_{digest[:32]}"


def listed(entry: Identified, include: frozenset[str]) -> Item:
    """Return an item as the API shows it: complete, without what has to be asked for."""
    kind = type_of(entry.item)
    shown = {**entry.item, "id": entry.item_id, "type": kind}
    if kind not in _WITHOUT_STATUS and shown.get("status") is None:
        shown["status"] = "completed"
    if kind == "message":
        shown["content"] = _content(shown.get("content"), shown.get("role"), include)
    elif kind == "reasoning":
        shown["summary"] = shown.get("summary") or []
    _leave_out(shown, kind, include)
    return shown


def _content(content: object, role: object, include: frozenset[str]) -> list[Any]:
    if isinstance(content, str):
        content = [
            {"type": "output_text" if role == "assistant" else "input_text", "text": content}
        ]
    if not isinstance(content, list):
        return []
    return [_part(part, include) if isinstance(part, dict) else part for part in content]


def _part(part: Item, include: frozenset[str]) -> Item:
    kind = part.get("type")
    if kind == "output_text":
        shown = {**part, "annotations": part.get("annotations") or []}
        if "message.output_text.logprobs" not in include:
            shown.pop("logprobs", None)
        return shown
    if kind == "input_image":
        shown = {**part, "detail": part.get("detail") or "auto"}
        if "message.input_image.image_url" not in include:
            shown.pop("image_url", None)
        return shown
    return part


def _leave_out(shown: Item, kind: str, include: frozenset[str]) -> None:
    for holder, field, name in (
        ("reasoning", "encrypted_content", "reasoning.encrypted_content"),
        ("file_search_call", "results", "file_search_call.results"),
        ("web_search_call", "results", "web_search_call.results"),
        ("code_interpreter_call", "outputs", "code_interpreter_call.outputs"),
    ):
        if kind == holder and name not in include:
            shown.pop(field, None)
    for holder, inner, field, name in (
        ("web_search_call", "action", "sources", "web_search_call.action.sources"),
        ("computer_call_output", "output", "image_url", "computer_call_output.output.image_url"),
    ):
        value = shown.get(inner)
        if kind == holder and name not in include and isinstance(value, dict):
            shown[inner] = {k: v for k, v in value.items() if k != field}


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


def unknown_cursor(item_id: str, param: str) -> Exception:
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
