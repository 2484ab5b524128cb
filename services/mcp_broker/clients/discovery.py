"""What tools an MCP server has, as the contract says it."""

from __future__ import annotations

import logging

from mcp import Client
from mcp_types import Tool

from contracts.tools import McpTool
from services.kit.codec import dumps
from services.mcp_broker.servers_file import ServerConfig

logger = logging.getLogger(__name__)

MAX_TOOLS = 500
MAX_TOOLS_BYTES = 2 * 1024 * 1024
"""All tools of a server travel in one message."""

_MAX_PAGES = 100


async def discover(client: Client, config: ServerConfig) -> tuple[McpTool, ...]:
    """Return the tools that may be called, in the server's order.

    Tools beyond 500, or beyond 2 MiB of their JSON, are left out with a warning. Raises `MCPError`
    and pydantic's `ValidationError` as the SDK does.
    """
    found: list[McpTool] = []
    size, cursor = 0, None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            if config.allowed_tools is not None and tool.name not in config.allowed_tools:
                continue
            ours = _ours(tool)
            size += len(dumps(ours.model_dump()))
            if len(found) == MAX_TOOLS or size > MAX_TOOLS_BYTES:
                logger.warning("%s has too many tools: %r and on", config.label, tool.name)
                return tuple(found)
            found.append(ours)
        cursor = page.next_cursor
        if cursor is None:
            break
    return tuple(found)


def _ours(tool: Tool) -> McpTool:
    annotations = tool.annotations
    return McpTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=annotations.model_dump(mode="json", by_alias=True, exclude_none=True)
        if annotations
        else None,
    )
