"""Pure rules of a run: what goes upstream, and what the client's Response looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.responses import RunResponseV1, TerminalStatus
from services.worker.files.attached import Files, with_files, with_masks

Item = dict[str, Any]
Event = dict[str, Any]
Response = dict[str, Any]

TERMINAL: frozenset[TerminalStatus] = frozenset({"completed", "failed", "incomplete", "cancelled"})
OPENING_EVENTS = frozenset({"response.created", "response.queued", "response.in_progress"})
TERMINAL_EVENTS = frozenset(f"response.{status}" for status in TERMINAL)

_OWN_PARAMETERS = frozenset(
    {"previous_response_id", "conversation", "background", "background_options", "stream"}
)
_DEFAULTS: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one response; `request` and `history` are complete, no claim checks.

    `overrides` is what a provider is sent in place of the request's own parameters, None for those
    that are left out. No attempt began before `since`, if that is known.
    """

    command: RunResponseV1
    attempt: int
    request: dict[str, Any]
    history: list[Item]
    cancelled: bool = False
    files: Files = field(default_factory=dict)
    overrides: dict[str, str | None] | None = None
    traceparent: str | None = None
    since: datetime | None = None

    @property
    def response_id(self) -> str:
        """The id the client knows."""
        return self.command.response_id

    def input_items(self) -> list[Item]:
        """Return the whole input, oldest item first; a plain string is one user message."""
        own = self.request.get("input") or []
        if isinstance(own, str):
            own = [{"type": "message", "role": "user", "content": own}]
        return [*self.history, *own]

    def complete_input(self) -> list[Item]:
        """Return the whole input with the files it names as data, for a provider.

        Raises `RequestRefusedError` about a file that was deleted since.
        """
        items = self.input_items()
        return with_files(items, self.files) if self.files else items

    def complete_tools(self, tools: list[Any]) -> list[Any]:
        """Return tools with the files they name as data; raises as `complete_input` does."""
        return with_masks(tools, self.files) if self.files else tools

    def upstream_request(self, *, model: str, stream: bool) -> dict[str, Any]:
        """Return the body for a Responses-native provider, which knows nothing of our state."""
        body = {k: v for k, v in self.request.items() if k not in _OWN_PARAMETERS}
        if self.history or self.files:
            body["input"] = self.complete_input()
        if self.files and isinstance(body.get("tools"), list):
            body["tools"] = self.complete_tools(body["tools"])
        body["model"] = model
        if stream:
            body["stream"] = True
        if self.overrides is not None:
            body |= self.overrides
            body = {k: v for k, v in body.items() if v is not None or k not in self.overrides}
        return body

    def skeleton(self, *, created_at: int, status: str = "in_progress") -> Response:
        """Return the Response object as it is before any output, echoing the request."""
        request = self.request
        echo = {
            k: request.get(k) if request.get(k) is not None else v for k, v in _DEFAULTS.items()
        }
        if echo["tools"]:
            echo["tools"] = [_echoed_tool(tool) for tool in echo["tools"]]
        reasoning = request.get("reasoning") or {}
        text = request.get("text") or {}
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": created_at,
            "status": status,
            "background": self.command.background,
            "completed_at": None,
            "conversation": self._conversation(),
            "error": None,
            "incomplete_details": None,
            "metadata": request.get("metadata") or {},
            "model": self.command.model,
            "output": [],
            "previous_response_id": self.command.previous_response_id,
            "reasoning": {"effort": None, "summary": None, **reasoning},
            "store": self.command.store,
            "text": {"format": {"type": "text"}, **text},
            "usage": None,
            **echo,
        }

    def adopt(self, response: Response) -> Response:
        """Make a provider's Response object ours: its id, its links and its state; in place."""
        response["id"] = self.response_id
        response["previous_response_id"] = self.command.previous_response_id
        response["background"] = self.command.background
        response["store"] = self.command.store
        if self.command.conversation_id is not None:
            response["conversation"] = self._conversation()
        return response

    def _conversation(self) -> dict[str, str] | None:
        conversation = self.command.conversation_id
        return None if conversation is None else {"id": conversation}


def _echoed_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Name what a function left open: the API's type of it has all fields."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": False} | tool


def terminal_status(response: Response) -> TerminalStatus | None:
    """Return the status if it is a terminal one of the API."""
    status = response.get("status")
    return next((terminal for terminal in TERMINAL if terminal == status), None)


def fail(
    response: Response, *, error: dict[str, str], output: list[Item], finished_at: datetime
) -> Response:
    """Turn a Response into a failed one that keeps its partial output; in place."""
    response["status"] = "failed"
    response["error"] = error
    response["output"] = output
    response["completed_at"] = None
    response.setdefault("created_at", int(finished_at.timestamp()))
    return response


def cancel(response: Response) -> Response:
    """Turn a Response without output into a cancelled one; in place."""
    response.update(status="cancelled", error=None, completed_at=None)
    return response


def add_usage(total: dict[str, Any] | None, turn: dict[str, Any] | None) -> dict[str, Any] | None:
    """Sum the token counts of two model turns, details included; None when neither reported any."""
    if total is None or turn is None:
        return total or turn
    summed: dict[str, Any] = {}
    for key in {**total, **turn}:
        left, right = total.get(key), turn.get(key)
        if isinstance(left, dict) or isinstance(right, dict):
            summed[key] = add_usage(left or {}, right or {})
        elif isinstance(left, int | float) and isinstance(right, int | float):
            summed[key] = left + right
        else:
            summed[key] = left if left is not None else right
    return summed


def mcp_history_as_functions(items: list[Item], names: dict[tuple[str, str], str]) -> list[Item]:
    """Rewrite earlier `mcp_call` items as function calls, for a provider that hosts no MCP.

    `names` gives the function name of (server label, tool); a tool that is no longer offered keeps
    its own name. `mcp_list_tools` items say nothing to such a provider and are left out.
    """
    lowered: list[Item] = []
    for item in items:
        kind = item.get("type")
        if kind == "mcp_list_tools":
            continue
        if kind != "mcp_call":
            lowered.append(item)
            continue
        label, tool = str(item.get("server_label")), str(item.get("name"))
        call_id = f"call_{item.get('id')}"
        output = item.get("output")
        if output is None:
            output = json.dumps({"error": item.get("error")})
        lowered += [
            {
                "type": "function_call",
                "call_id": call_id,
                "name": names.get((label, tool), tool),
                "arguments": item.get("arguments") or "{}",
            },
            {"type": "function_call_output", "call_id": call_id, "output": output},
        ]
    return lowered
