"""What a compaction is made of when we make it: the question, the kept messages, the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.worker.chat.turn import TurnEnd
from services.worker.domain import Item
from services.worker.errors import UpstreamError

Object = dict[str, Any]
_QUESTION = (
    "The conversation above is about to be replaced by a summary that you write now. Whoever goes "
    "on with it will see the summary and the user's messages, nothing else. Write down everything "
    "that is needed to go on: what the user wants, what was said and decided, facts, names, "
    "numbers, code and file names, what tools were called and what they gave, what is still to be "
    "done. Don't answer the user, don't call tools, write the summary alone."
)
_OWN = frozenset({"input", "model", "previous_response_id", "store", "stream"})


def question(request: Object, items: list[Item]) -> tuple[Object, list[Item]]:
    """Return the parameters and the input of the model turn that summarises `items`."""
    parameters = {name: value for name, value in request.items() if name not in _OWN}
    return parameters, [*items, {"type": "message", "role": "user", "content": _QUESTION}]


def summary_of(end: TurnEnd) -> str:
    """Return what the turn wrote; raises `UpstreamError` when it is no whole summary."""
    if end.status == "failed":
        raise UpstreamError((end.error or {}).get("message") or "the summary failed")
    text = "".join(
        str(part.get("text") or "")
        for item in end.output
        if item.get("type") == "message"
        for part in item.get("content") or ()
    )
    if end.status == "incomplete":
        reason = (end.incomplete_details or {}).get("reason")
        raise UpstreamError(f"the summary was cut short: {reason}", retryable=False)
    if not text.strip():
        raise UpstreamError("the model wrote no summary")
    return text


def user_messages(items: list[Item], new_id: Callable[[str], str]) -> list[Item]:
    """Return the user's messages among the items as output items, which a compaction keeps."""
    kept: list[Item] = []
    for item in items:
        if item.get("type", "message") != "message" or item.get("role") != "user":
            continue
        content = item.get("content")
        if isinstance(content, str):
            content = [{"type": "input_text", "text": content}]
        kept.append(
            {
                "id": item.get("id") or new_id("msg"),
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": content or [],
            }
        )
    return kept


def compaction_object(
    response_id: str, *, created_at: int, output: list[Item], usage: Object
) -> Object:
    """Return the API's object for a compacted conversation."""
    return {
        "id": response_id,
        "object": "response.compaction",
        "created_at": created_at,
        "output": output,
        "usage": usage,
    }
