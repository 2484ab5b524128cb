"""The pure rules of a tool call: which arguments are accepted, and what its result looks like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.tools import ToolCallError
from services.mcp_broker.errors import ToolCallFailedError

Block = dict[str, Any]
"""One content block of a tool result, in the JSON form of the MCP specification."""

_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a result is passed on, in bytes of UTF-8."""

    output_bytes: int
    content_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: see `contracts.tools.ToolResultV1` for the fields."""

    output: str = ""
    content: list[Block] = field(default_factory=list)
    error: ToolCallError | None = None
    message: str | None = None


def failure(error: ToolCallError, message: str) -> Outcome:
    """Return the outcome of a call that the broker itself could not make."""
    return Outcome(error=error, message=message[:_MESSAGE_CHARACTERS])


def parse_arguments(text: str) -> dict[str, Any]:
    """Return the JSON object that a model wrote; no text at all stands for no arguments.

    Raises `ToolCallFailedError` (`invalid_arguments`) for everything else.
    """
    if not text.strip():
        return {}
    try:
        arguments = json.loads(text, parse_constant=_refuse_constant)
        # A lone surrogate parses but can't be written as UTF-8, so no server could be sent it.
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ToolCallFailedError(
            "invalid_arguments", f"the arguments are not valid JSON: {error}"
        ) from error
    if not isinstance(arguments, dict):
        raise ToolCallFailedError("invalid_arguments", "the arguments are not a JSON object")
    return arguments


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def render(
    blocks: Sequence[Block],
    *,
    structured: object | None,
    is_error: bool,
    limits: Limits,
) -> Outcome:
    """Turn the result of a tool into text for the model and blocks for those who want more.

    Text blocks are joined with line breaks. With any other block the text is the JSON of all
    blocks. A result of structured content alone becomes one text block, as the specification asks
    of servers for older clients.
    """
    if not blocks and structured is not None:
        blocks = [{"type": "text", "text": _json(structured)}]
    if all(block.get("type") == "text" for block in blocks):
        text = "\n".join(str(block.get("text", "")) for block in blocks)
    else:
        text = _json(list(blocks))
    output = _cut(text, limits.output_bytes)
    return Outcome(
        output=output,
        content=_kept(blocks, limits.content_bytes),
        error="tool_error" if is_error else None,
        message=output[:_MESSAGE_CHARACTERS] if is_error else None,
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    kept = encoded[:limit_bytes].decode(errors="ignore")
    return f"{kept}\n[cut: the first {limit_bytes} of {len(encoded)} bytes]"


def _kept(blocks: Sequence[Block], limit_bytes: int) -> list[Block]:
    kept: list[Block] = []
    size = 0
    for block in blocks:
        size += len(_json(block).encode())
        if size > limit_bytes:
            missing = len(blocks) - len(kept)
            notice = (
                f"[{missing} of {len(blocks)} content blocks left out: above {limit_bytes} bytes]"
            )
            return [*kept, {"type": "text", "text": notice}]
        kept.append(block)
    return kept
