"""What the bodies of the conversation routes must look like."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StrictStr, ValidationError

from services.intake.errors import invalid
from services.intake.items.item import type_of
from services.intake.request import InputItem, Metadata, explain, missing, refuse_references

MAX_NEW_ITEMS = 20
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "computer_call": ("call_id",),
    "computer_call_output": ("call_id", "output"),
    "reasoning": ("summary",),
    "compaction": ("encrypted_content",),
    "file_search_call": ("queries",),
    "web_search_call": ("action",),
    "code_interpreter_call": ("container_id",),
    "image_generation_call": (),
    "local_shell_call": ("call_id", "action"),
    "local_shell_call_output": ("output",),
    "shell_call": ("call_id", "action"),
    "shell_call_output": ("call_id", "output"),
    "apply_patch_call": ("call_id", "operation"),
    "apply_patch_call_output": ("call_id", "status"),
    "tool_search_call": ("arguments",),
    "tool_search_output": ("tools",),
    "additional_tools": ("role", "tools"),
    "mcp_list_tools": ("server_label", "tools"),
    "mcp_approval_request": ("arguments", "name", "server_label"),
    "mcp_approval_response": ("approval_request_id", "approve"),
    "mcp_call": ("arguments", "name", "server_label"),
    "program": ("call_id", "code", "fingerprint"),
    "program_output": ("call_id", "result", "status"),
    "configuration_update": (),
}
_TEXTS = frozenset({"call_id", "name", "arguments", "server_label"})

_Items = Annotated[list[InputItem], Field(max_length=MAX_NEW_ITEMS)]
_Body = TypeVar("_Body", bound=BaseModel)


class NewConversation(BaseModel):
    """The body of `POST /v1/conversations`."""

    items: _Items | None = None
    metadata: Metadata | None = None


class ConversationUpdate(BaseModel):
    """The body of `POST /v1/conversations/{id}`."""

    metadata: Metadata | None


class NewItems(BaseModel):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: Annotated[_Items, Field(min_length=1)]
    include: list[StrictStr] | None = None


def parse(model: type[_Body], body: object) -> _Body:
    """Validate a body; raises `ApiError` (400) about the first wrong parameter."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.", param=None)
    try:
        parsed = model.model_validate(body)
    except ValidationError as error:
        raise explain(error, body) from error
    items = getattr(parsed, "items", None) or []
    refuse_references(items, "items")
    for index, item in enumerate(body.get("items") or []):
        _check(item, f"items[{index}]")
    return parsed


def _check(item: dict[str, Any], param: str) -> None:
    """Refuse an item that could not be listed again as one of the API's."""
    kind = type_of(item)
    if kind not in _REQUIRED:
        raise invalid(
            f"Invalid value: '{kind}' is no type of item that a conversation keeps.",
            param=f"{param}.type",
            code="invalid_value",
        )
    for name in _REQUIRED[kind]:
        if item.get(name) is None:
            raise missing(f"{param}.{name}")
        if name in _TEXTS and not isinstance(item[name], str) and kind != "tool_search_call":
            raise invalid(
                f"Invalid type for '{param}.{name}': expected a string.",
                param=f"{param}.{name}",
                code="invalid_type",
            )
    if kind == "message" and item["role"] not in _ROLES:
        raise invalid(
            f"Invalid value: '{item['role']}'. Supported values are: "
            "'assistant', 'developer', 'system' and 'user'.",
            param=f"{param}.role",
            code="invalid_value",
        )
