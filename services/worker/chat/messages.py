"""Responses items as chat messages: whole assistant turns, each followed by its tool results."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from services.worker.chat.content import Part, required, text_of, tool_content, user_content
from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.hosted import (
    CALLS,
    OUTPUTS,
    Told,
    call_id_of,
    open_call,
    output_of,
    whole_call,
)
from services.worker.errors import RequestRefusedError

Message = dict[str, Any]

# The tools themselves are told as tools, and approvals are no business of the model.
DROPPED_ITEMS = frozenset({"mcp_approval_request", "mcp_approval_response", "mcp_list_tools"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_SYSTEM_ROLES = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class ReasoningBack:
    """Where a provider takes its own reasoning back, and which: of all turns, or of the last."""

    field: str
    all_turns: bool = False


def to_messages(
    items: list[dict[str, Any]],
    instructions: str | None,
    reasoning: ReasoningBack | None = None,
) -> list[Message]:
    """Return `instructions` and the items, oldest first, as chat messages.

    System texts at the very beginning become one message, because many chat templates accept
    no second one. Raises UnsupportedParameterError for items that can't be told in chat, and
    RequestRefusedError for a call without output or an output without call, which chat servers
    answer in as many ways as there are servers.
    """
    conversation = _Conversation(_outputs(items), reasoning.field if reasoning else None)
    if instructions:
        conversation.system(instructions)
    since = 0 if reasoning and reasoning.all_turns else _last_user(items)
    for number, item in enumerate(items):
        if item.get("type") == "reasoning":
            if number >= since:
                conversation.thought(_thoughts(item))
        else:
            _add(conversation, item, f"input[{number}]")
    return conversation.finish()


@dataclass
class _Result:
    """What a call returned; `media` are the parts a tool message can't hold."""

    text: str
    media: list[Part] = field(default_factory=list)


@dataclass
class _Call:
    call_id: str
    name: str
    arguments: str
    result: _Result | None = None


class _Conversation:
    """Collects messages; text and calls of one model turn gather until its results are seen."""

    def __init__(self, outputs: dict[str, deque[_Result]], reasoning_field: str | None) -> None:
        self._outputs = outputs
        self._reasoning_field = reasoning_field
        self._thoughts: list[str] = []
        self._messages: list[Message] = []
        self._texts: list[str] = []
        self._calls: list[_Call] = []
        self._answered = False

    def system(self, text: str) -> None:
        self._end_turn()
        if len(self._messages) == 1 and self._messages[0]["role"] == "system":
            self._messages[0]["content"] += f"\n\n{text}"
        else:
            self._messages.append({"role": "system", "content": text})

    def user(self, content: str | list[Part]) -> None:
        self._end_turn()
        self._messages.append({"role": "user", "content": content})

    def assistant(self, text: str) -> None:
        self._same_turn()
        self._texts.append(text)

    def thought(self, text: str) -> None:
        self._same_turn()
        if text:
            self._thoughts.append(text)

    def call(self, call: _Call) -> None:
        self._same_turn()
        self._calls.append(call)

    def answered(self) -> None:
        """Note that the model has seen results: what it says next is another turn."""
        self._answered = True

    def finish(self) -> list[Message]:
        self._end_turn()
        for call_id, results in self._outputs.items():
            if results:
                message = f"No tool call found for function call output with call_id {call_id}."
                raise RequestRefusedError(message, param="input")
        return self._messages

    def _same_turn(self) -> None:
        if self._answered:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._texts or self._calls:
            text = "\n".join(self._texts) if self._texts else None
            message: Message = {"role": "assistant", "content": text}
            if self._thoughts and self._reasoning_field:
                message[self._reasoning_field] = "\n".join(self._thoughts)
            if self._calls:
                message["tool_calls"] = [_tool_call(call) for call in self._calls]
            self._messages.append(message)
            self._add_results()
        self._texts, self._calls, self._thoughts, self._answered = [], [], [], False

    def _add_results(self) -> None:
        media: list[Part] = []
        for call in self._calls:
            result = call.result or self._output_of(call)
            text = result.text
            if result.media:
                text = f"{text}\n(The user attaches the rest.)".lstrip()
                media.append({"type": "text", "text": f"Attached by tool call {call.call_id}:"})
                media.extend(result.media)
            self._messages.append({"role": "tool", "tool_call_id": call.call_id, "content": text})
        if media:
            self._messages.append({"role": "user", "content": media})

    def _output_of(self, call: _Call) -> _Result:
        results = self._outputs.get(call.call_id)
        if not results:
            message = f"No tool output found for function call {call.call_id}."
            raise RequestRefusedError(message, param="input")
        return results.popleft()


def _add(conversation: _Conversation, item: dict[str, Any], where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if kind == "message":
        _add_message(conversation, item, where)
    elif kind == "function_call":
        arguments = required(item, "arguments", where) or "{}"
        conversation.call(_call(item, arguments, where))
    elif kind == "custom_tool_call":
        wrapped = json.dumps({"input": required(item, "input", where)}, ensure_ascii=False)
        conversation.call(_call(item, wrapped, where))
    elif kind in _OUTPUTS or kind in OUTPUTS:
        conversation.answered()
    elif kind in CALLS:
        told, call_id = open_call(item), call_id_of(item)
        if not isinstance(call_id, str):
            raise UnsupportedParameterError(f"{where}.call_id", f"'{where}.call_id' must be there.")
        conversation.call(_Call(call_id, told.name, _arguments(told)))
    elif (told_whole := whole_call(item)) is not None:
        result = _Result(told_whole.text, list(told_whole.media))
        call_id = required(item, "id", where)
        conversation.call(_Call(call_id, told_whole.name, _arguments(told_whole), result))
        conversation.answered()
    elif kind == "mcp_call":
        arguments = required(item, "arguments", where) or "{}"
        name, call_id = required(item, "name", where), required(item, "id", where)
        conversation.call(_Call(call_id, name, arguments, _Result(_mcp_result(item))))
        conversation.answered()
    elif kind == "compaction":
        message = "This conversation was compacted by another provider: only it can read it."
        raise UnsupportedParameterError(f"{where}.encrypted_content", message)
    elif kind not in DROPPED_ITEMS:
        message = f"Items of type {kind!r} are not supported by providers of dialect 'chat'."
        raise UnsupportedParameterError(f"{where}.type", message)


def _add_message(conversation: _Conversation, item: dict[str, Any], where: str) -> None:
    role, content = item.get("role"), item.get("content")
    place = f"{where}.content"
    if role in _SYSTEM_ROLES:
        conversation.system(text_of(content, place))
    elif role == "user":
        conversation.user(user_content(content, place))
    elif role == "assistant":
        conversation.assistant(text_of(content, place))
    else:
        message = f"Messages of role {role!r} are not supported by providers of dialect 'chat'."
        raise UnsupportedParameterError(f"{where}.role", message)


def _outputs(items: list[dict[str, Any]]) -> dict[str, deque[_Result]]:
    """Find the outputs by call, since a tool message must follow its call at once."""
    outputs: dict[str, deque[_Result]] = {}
    for number, item in enumerate(items):
        kind, where = item.get("type"), f"input[{number}]"
        if kind in _OUTPUTS or kind in OUTPUTS:
            if kind in OUTPUTS:
                text, media = output_of(item, where)
                call_id = str(call_id_of(item))
            else:
                text, media = tool_content(item.get("output"), f"{where}.output")
                call_id = required(item, "call_id", where)
            outputs.setdefault(call_id, deque()).append(_Result(text, media))
    return outputs


def _last_user(items: list[dict[str, Any]]) -> int:
    """Return where the turn that goes on began: what was thought before is over."""
    places = (n for n, item in enumerate(items) if item.get("role") == "user")
    return max(places, default=0)


def _thoughts(item: dict[str, Any]) -> str:
    """Return the reasoning itself; a summary is not what the model thought."""
    parts = item.get("content") or ()
    return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _arguments(told: Told) -> str:
    return json.dumps(told.arguments, ensure_ascii=False)


def _call(item: dict[str, Any], arguments: str, where: str) -> _Call:
    return _Call(required(item, "call_id", where), required(item, "name", where), arguments)


def _tool_call(call: _Call) -> Message:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _mcp_result(item: dict[str, Any]) -> str:
    error = item.get("error")
    if error is None:
        return str(item.get("output") or "")
    if isinstance(error, dict):
        told = error.get("message") or error.get("content") or error
        error = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
    return f"Error: {error}"
