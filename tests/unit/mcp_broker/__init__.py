"""Tests of the MCP broker without I/O."""
