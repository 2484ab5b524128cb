"""Connections to MCP servers: their discovery, and the calls of their tools."""
