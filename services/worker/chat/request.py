"""A Responses request as the body of POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from services.worker.chat.messages import ReasoningBack, to_messages
from services.worker.chat.parameters import plain_parameters
from services.worker.chat.tools import tool_parameters


def to_chat_request(
    request: dict[str, Any],
    items: list[dict[str, Any]],
    *,
    model: str,
    reasoning_field: str | None = None,
) -> dict[str, Any]:
    """Return the chat request for the body of POST /v1/responses.

    `items` are the complete input, oldest first: history and own input, references resolved.
    `model` is the provider's name of the model, `reasoning_field` the field of an assistant message
    in which it takes its own reasoning back, None if it takes none. The answer is always streamed,
    with usage. Every parameter is obeyed, passed or refused by name (the table is in
    parameters.py): raises UnsupportedParameterError, or RequestRefusedError when calls and outputs
    don't match.
    """
    context = (request.get("reasoning") or {}).get("context")
    back = None
    if reasoning_field is not None:
        back = ReasoningBack(reasoning_field, all_turns=context == "all_turns")
    return {
        "model": model,
        "messages": to_messages(items, request.get("instructions"), back),
        **plain_parameters(request),
        **tool_parameters(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
