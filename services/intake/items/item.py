"""Items as the API shows them: their ids, and the fields it always fills or leaves out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]

MAX_ID_LENGTH = 256
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
