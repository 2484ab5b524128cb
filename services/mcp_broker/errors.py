"""What the broker can't do for a caller, or for the person who configures it."""

from __future__ import annotations

from contracts.tools import ToolCallError


class BrokerError(Exception):
    """The base of this service's errors."""


class ServersFileError(BrokerError, ValueError):
    """The file of MCP servers is not usable; the text names the file and the key, in one line."""


class ToolCallFailedError(BrokerError):
    """A tool call gave no result; `error` is what the waiting worker is told, `message` says why
    to people.
    """

    def __init__(self, error: ToolCallError, message: str) -> None:
        super().__init__(f"{error}: {message}")
        self.error: ToolCallError = error
        self.message = message


class ConnectionLostError(BrokerError):
    """An MCP server closed its connection."""
