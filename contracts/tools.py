"""Tool calls that a worker sends to an executor, and what comes back."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.event import Contract
from contracts.principal import Principal

ToolCallError = Literal[
    "unknown_server", "unknown_tool", "invalid_arguments", "timeout", "unavailable", "tool_error"
]


class CallMcpToolV1(Contract):
    """Call one tool of a configured MCP server. Topic `mcp.commands`, keyed by the response id.

    `call_id` is deterministic for (response, turn, position): an executor that has seen it answers
    from its record. `arguments` is the JSON text that the model wrote. Nobody waits after
    `deadline`. `reply_partition` is the partition of `tools.results` that the waiting worker tails.
    """

    TYPE: ClassVar[str] = "antiphon.mcp.call_tool.v1"

    call_id: str
    response_id: str
    principal: Principal
    server_label: str
    tool: str
    arguments: str
    reply_partition: int = Field(ge=0)
    deadline: AwareDatetime


class ToolResultV1(Contract):
    """What a tool call gave. Topic `tools.results`, keyed by the response id.

    `output` is the text for the model; `content` the tool's own content blocks. `error` is set when
    the call failed, with `message` for people. `latency_ms` is the executor's own time.
    """

    TYPE: ClassVar[str] = "antiphon.tool.result.v1"

    call_id: str
    response_id: str
    principal: Principal
    executor: str
    server_label: str
    tool: str
    output: str
    content: list[dict[str, Any]] = Field(default_factory=list)
    error: ToolCallError | None = None
    message: str | None = None
    latency_ms: float = Field(ge=0)


class McpTool(BaseModel):
    """One tool of an MCP server; `input_schema` is JSON Schema."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    annotations: dict[str, Any] | None = None


class McpServerDiscoveredV1(Contract):
    """The state of one MCP server. Topic `mcp.servers`, compacted, keyed by the label."""

    TYPE: ClassVar[str] = "antiphon.mcp.server_discovered.v1"

    server_label: str
    transport: Literal["stdio", "streamable_http", "sse"]
    status: Literal["ready", "unavailable"]
    tools: list[McpTool] = Field(default_factory=list)
    error: str | None = None
