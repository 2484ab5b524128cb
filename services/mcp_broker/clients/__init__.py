"""Adapters to the outside: MCP servers, and the topics that the broker writes."""
