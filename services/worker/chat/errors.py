"""What the Chat Completions dialect can't express."""

from __future__ import annotations

from services.worker.errors import RequestRefusedError


class UnsupportedParameterError(RequestRefusedError):
    """The request asks for something that Chat Completions has no word for.

    `param` names it the way the API does: `truncation`, `tools[0].format`, `input[2].content[1]`.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message, param=param, code="unsupported_parameter")
