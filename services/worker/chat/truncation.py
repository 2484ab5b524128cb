"""`truncation: auto` for servers that only refuse what is too long: the oldest rounds go first."""

from __future__ import annotations

from typing import Any

from services.worker.errors import UpstreamError

Message = dict[str, Any]
_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# vLLM, SGLang, llama.cpp, Ollama and others say it in words alone.
_PHRASES = (
    "context length",
    "context size",
    "context window",
    "maximum context",
    "prompt is too long",
    "too many tokens",
)
_TOO_LARGE = (400, 413, 422)


def is_too_long(error: UpstreamError) -> bool:
    """Whether a provider refused a request because its input does not fit the model."""
    if error.status not in _TOO_LARGE:
        return False
    message = error.message.lower()
    return error.code in _CODES or any(phrase in message for phrase in _PHRASES)


def shorter(messages: list[Message]) -> list[Message] | None:
    """Return the messages without the older half of their rounds, None when there is but one.

    A round is a user's message with all that followed it, so calls keep their results. System
    messages at the beginning stay.
    """
    head = 0
    while head < len(messages) and messages[head]["role"] == "system":
        head += 1
    # What a user message after a tool's holds is attached to the tool's result.
    begins = [
        place
        for place in range(head, len(messages))
        if messages[place]["role"] == "user"
        and (place == head or messages[place - 1]["role"] != "tool")
    ]
    if begins and begins[0] != head:
        begins.insert(0, head)
    if len(begins) < 2:
        return None
    return [*messages[:head], *messages[begins[(len(begins) + 1) // 2] :]]
