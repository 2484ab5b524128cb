"""Responses as intake knows them: what is projected, what is read, what a new one looks like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRow:
    """What a command tells about a response."""

    response_id: str
    project: str
    key_id: str
    user: str | None
    chat: str | None
    model: str
    background: bool
    stream: bool
    events_partition: int
    previous_response_id: str | None
    accepted_at: datetime
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRow:
    """What the terminal fact tells about a response, enough to make the row when it comes first."""

    response_id: str
    project: str
    key_id: str
    user: str | None
    chat: str | None
    model: str
    events_partition: int
    accepted_at: datetime
    finished_at: datetime
    status: str
    last_sequence_number: int | None
    response: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as the projection has it; `response` is None until it is finished."""

    response_id: str
    project: str
    status: str
    background: bool
    stream: bool
    events_partition: int
    previous_response_id: str | None
    last_sequence_number: int | None
    request: str | None
    response: str | None
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """A response that wants to speak next in a conversation. `input` are its items as JSON."""

    response_id: str
    conversation_id: str
    project: str
    input: str
    item_ids: list[str]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What a response said at its end; None when its turn leaves nothing in the conversation."""

    response_id: str
    output: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items; `metadata` is a JSON object."""

    conversation_id: str
    project: str
    key_id: str
    metadata: str
    created_at: datetime


def conversation_of(request: dict[str, Any]) -> str | None:
    """Return the id of the conversation that a create request names, None when it names none."""
    given = request.get("conversation")
    if isinstance(given, dict):
        given = given.get("id")
    return given if isinstance(given, str) else None


def input_items(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a request's own input as items; a plain string is one user message."""
    given = request.get("input") or []
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return list(given)


def output_items(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a finished response's output, without what a provider put there that is no item."""
    given = response.get("output")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def queued_response(response_id: str, request: dict[str, Any], created_at: int) -> dict[str, Any]:
    """Return a Response object without output, echoing its request."""
    text = request.get("text") or {}
    conversation = conversation_of(request)
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "queued",
        "background": bool(request.get("background")),
        "conversation": None if conversation is None else {"id": conversation},
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": request.get("metadata") or {},
        "model": request.get("model"),
        "output": [],
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "previous_response_id": request.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None, **(request.get("reasoning") or {})},
        "store": request.get("store") is not False,
        "temperature": request.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p", 1.0),
        "truncation": request.get("truncation") or "disabled",
        "usage": None,
    }
