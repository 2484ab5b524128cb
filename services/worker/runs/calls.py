"""Tool calls of a composed response as the client sees them, from their item to their end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from contracts.tools import ToolResultV1
from services.worker.domain import Item
from services.worker.runs.writer import EventWriter
from services.worker.tools.mcp import McpCall

OVER_LIMIT = "The call was not made: the response's max_tool_calls was reached."


@dataclass
class OpenCall:
    """A tool call of the turn at hand, as the model made it and as the client sees it."""

    output_index: int
    item: Item
    call_id: str | None = None

    def at(self, position: int) -> McpCall:
        """Return the call to be made; `position` counts the calls of the response from 0."""
        return McpCall(
            server_label=self.item["server_label"],
            tool=self.item["name"],
            arguments=self.item["arguments"] or "{}",
            position=position,
        )

    def answer(self, text: str) -> Item:
        """Return the result as the next turn's input item."""
        return {"type": "function_call_output", "call_id": self.call_id, "output": text}


def opened(target: tuple[str, str], output_index: int, item_id: str) -> OpenCall:
    """Return the call of a tool, (server label, name), whose arguments are yet to come."""
    label, tool = target
    item: Item = {
        "id": item_id,
        "type": "mcp_call",
        "status": "in_progress",
        "approval_request_id": None,
        "arguments": "",
        "error": None,
        "name": tool,
        "output": None,
        "server_label": label,
    }
    return OpenCall(output_index, item)


def tell(writer: EventWriter, call: OpenCall, kind: str, **fields: Any) -> None:
    """Write an event about a call."""
    place = {"output_index": call.output_index, "item_id": call.item["id"]}
    writer.emit({"type": kind, **place, **fields})


def close(writer: EventWriter, call: OpenCall, text: str, *, failed: bool) -> None:
    """Write how a call ended: two events, whatever came of it."""
    if failed:
        content = [{"type": "text", "text": text}]
        error = {"type": "mcp_tool_execution_error", "content": content}
        call.item.update(status="failed", error=error)
        tell(writer, call, "response.mcp_call.failed")
    else:
        call.item.update(status="completed", output=text)
        tell(writer, call, "response.mcp_call.completed")
    done = {"type": "response.output_item.done", "output_index": call.output_index}
    writer.emit({**done, "item": call.item})


def result_of(result: ToolResultV1) -> tuple[str, bool]:
    """Return what the model is told of a result, and whether the call failed."""
    if result.error is None:
        return result.output, False
    return result.message or result.output or f"the tool call failed: {result.error}", True


def result_told(item: Item | None) -> tuple[str, bool] | None:
    """Return the result that an earlier attempt told the client, None when it told none."""
    if item is None or item.get("status") not in ("completed", "failed"):
        return None
    if item["status"] == "completed":
        return item["output"], False
    return item["error"]["content"][0]["text"], True


def list_id(response_id: str, server_label: str) -> str:
    """Return an id that every attempt gives to the response's list of a server's tools."""
    digest = hashlib.sha256(f"{response_id}\0{server_label}".encode()).hexdigest()
    return f"mcpl_{digest[:32]}"
