"""Which tools of a request run here, which the provider hosts, and what the model calls them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from contracts.tools import McpServerDiscoveredV1, McpTool
from services.worker.errors import RequestRefusedError

_CLIENT_TOOLS = frozenset({"function", "custom"})
_NAME_LENGTH = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")

Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class McpServerPlan:
    """One MCP server of the request and the tools of it that the model is offered."""

    label: str
    tools: tuple[McpTool, ...]


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """`offered` goes to the provider; `mcp` maps the names in it that run here."""

    offered: list[Tool]
    servers: list[McpServerPlan] = field(default_factory=list)
    mcp: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def runs_here(self) -> bool:
        """Whether the worker itself takes part in the tool loop."""
        return bool(self.servers)

    def names(self) -> dict[tuple[str, str], str]:
        """Return the function name of each (server label, tool)."""
        return {target: name for name, target in self.mcp.items()}

    def choice(self, tool_choice: Any) -> Any:
        """Return the request's `tool_choice` with an MCP tool named as the function it is."""
        if not isinstance(tool_choice, dict) or tool_choice.get("type") != "mcp":
            return tool_choice
        wanted = (str(tool_choice.get("server_label")), str(tool_choice.get("name")))
        name = self.names().get(wanted)
        return {"type": "function", "name": name} if name else "required"


def plan_tools(
    tools: list[Tool],
    *,
    hosted: frozenset[str],
    dialect: str,
    server: Callable[[str], McpServerDiscoveredV1 | None],
) -> ToolPlan:
    """Sort the request's tools; raises `RequestRefusedError` naming the one nobody can run.

    A provider of dialect `responses` gets tools of types we do not know as they are: it knows best.
    An MCP server of the broker's goes before one the provider would connect to itself.
    """
    plan = ToolPlan(offered=[])
    taken = {str(tool.get("name")) for tool in tools if tool.get("type") in _CLIENT_TOOLS}
    for index, tool in enumerate(tools):
        kind = str(tool.get("type"))
        if kind == "mcp" and (state := server(str(tool.get("server_label")))) is not None:
            _offer(plan, tool, state, taken, index)
        elif kind == "mcp" and kind not in hosted:
            raise RequestRefusedError(
                f"There is no MCP server with the label {tool.get('server_label')!r}.",
                param=f"tools[{index}].server_label",
                code="mcp_server_not_found",
            )
        elif kind in _CLIENT_TOOLS or kind in hosted or dialect == "responses":
            plan.offered.append(tool)
        else:
            raise RequestRefusedError(
                f"The tool type {kind!r} is not supported for this model.",
                param=f"tools[{index}].type",
                code="unsupported_parameter",
            )
    return plan


def _offer(
    plan: ToolPlan, tool: Tool, state: McpServerDiscoveredV1, taken: set[str], index: int
) -> None:
    if state.status != "ready":
        raise RequestRefusedError(
            f"The MCP server {state.server_label!r} is not available: {state.error}",
            param=f"tools[{index}].server_label",
            code="mcp_server_unavailable",
        )
    allowed = tool.get("allowed_tools")
    if isinstance(allowed, dict):
        allowed = allowed.get("tool_names")
    if not isinstance(allowed, list | None):
        raise RequestRefusedError(
            "Invalid type: expected an array of tool names.",
            param=f"tools[{index}].allowed_tools",
            code="invalid_type",
        )
    chosen = tuple(t for t in state.tools if allowed is None or t.name in allowed)
    plan.servers.append(McpServerPlan(state.server_label, chosen))
    for mcp_tool in chosen:
        name = _function_name(state.server_label, mcp_tool.name, taken)
        taken.add(name)
        plan.mcp[name] = (state.server_label, mcp_tool.name)
        plan.offered.append(
            {
                "type": "function",
                "name": name,
                "description": mcp_tool.description or "",
                "parameters": mcp_tool.input_schema,
                "strict": False,
            }
        )


def _function_name(label: str, tool: str, taken: set[str]) -> str:
    name = _NOT_IN_NAMES.sub("_", tool)
    if name in taken or len(name) > _NAME_LENGTH:
        name = _NOT_IN_NAMES.sub("_", f"{label}__{tool}")
    if name in taken or len(name) > _NAME_LENGTH:
        digest = hashlib.sha256(f"{label}\0{tool}".encode()).hexdigest()[:8]
        name = f"{name[: _NAME_LENGTH - 9]}_{digest}"
    return name
