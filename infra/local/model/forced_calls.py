"""When a tool call must happen, the grammar that forces it, and its way back to OpenAI's shape.

llama.cpp's own `tool_choice: required` lets a model write all the prose it likes before the call,
and ignores a named function. A model this small then never gets to the call, so here it can write
nothing else. Everything in this module is pure: requests, answers and chunks in, the same out.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import uuid4

from infra.local.model.errors import BadRequestError

Json: TypeAlias = dict[str, Any]

_CALL_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)'
)
_CALL_TAIL = re.compile(r"[\s}]*\Z")
_WORD = re.compile(r"[a-z0-9]+")


def choose_forced_tools(body: Json) -> list[Json]:
    """The tools of which the answer must call one; empty when the model may answer freely.

    - `required`: any of the request's tools. A named function: that one. `none`: no tool.
    - `auto`, or no choice: a model this size does not decide to call a tool by itself, so the
      tools that the last message names are forced, if that message is the user's: "use get-sum
      on 2 and 3" calls `get-sum`. A tool result as last message therefore gets an answer.

    Raises BadRequestError for a choice that the request's tools can't satisfy.
    """
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list) or not all(_is_function(tool) for tool in tools):
        raise BadRequestError("tools must be functions, each with a name", param="tools")
    match body.get("tool_choice"):
        case None | "auto":
            words = _words(_last_user_text(body))
            return [tool for tool in tools if _names(words, tool["function"]["name"])]
        case "none":
            return []
        case "required":
            if not tools:
                raise BadRequestError("tool_choice 'required' needs tools", param="tool_choice")
            return tools
        case {"type": "function", "function": {"name": str(name)}}:
            named = [tool for tool in tools if tool["function"]["name"] == name]
            if not named:
                raise BadRequestError(f"tool_choice names no tool: {name}", param="tool_choice")
            return named
        case choice:
            raise BadRequestError(f"tool_choice is not supported: {choice}", param="tool_choice")


def force(body: Json, tools: Sequence[Json]) -> Json:
    """The same request with its answer bound by a grammar to one call of one of `tools`.

    A schema with its own `$defs` keeps them: it moves below the root and references follow it.
    """
    parameters = {str(i): _parameters(tool, f"#/$defs/{i}") for i, tool in enumerate(tools)}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": {"$ref": f"#/$defs/{i}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for i, tool in enumerate(tools)
    ]
    schema = {"anyOf": calls, "$defs": parameters}
    return _with_template_switch(body, "forced_call") | {
        "tools": list(tools),
        "tool_choice": "none",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "tool_call", "schema": schema},
        },
    }


def leave_free(body: Json) -> Json:
    """The same request for an answer that is not forced.

    After a tool result, or where no tool may be called, the model sees earlier calls as prose and
    is not offered tools. Else llama.cpp lets it call: a call that it begins ends as a valid one.
    """
    free_to_call = body.get("tools") and body.get("tool_choice") != "none"
    if free_to_call and body["messages"][-1].get("role") != "tool":
        return body
    return _with_template_switch(body, "prose_calls") | {"tool_choice": "none"}


class CallReader:
    """Reads one forced call, `{"name": ..., "arguments": {...}}`, from text in pieces."""

    def __init__(self) -> None:
        self.call_id = f"call_{uuid4().hex}"
        self.name: str | None = None
        self._pending = ""

    def feed(self, text: str) -> str:
        """Take more text; return the part of the arguments that is now certain, perhaps empty."""
        self._pending += text
        if self.name is None:
            head = _CALL_HEAD.match(self._pending)
            if head is None:
                return ""
            self.name = json.loads(head["name"])
            self._pending = self._pending[head.end() :]
        tail = _CALL_TAIL.search(self._pending)
        cut = tail.start() if tail else len(self._pending)
        certain, self._pending = self._pending[:cut], self._pending[cut:]
        return certain

    def close(self, *, complete: bool) -> str:
        """Return the rest of the arguments; `complete` is false if the output was cut short."""
        rest, self._pending = self._pending.rstrip(), ""
        if self.name is None:
            return ""
        return rest.removesuffix("}").rstrip() if complete else rest


class ChunkTranslator:
    """Turns the chunks of one forced stream into tool call deltas, one reader per choice."""

    def __init__(self) -> None:
        self._readers: dict[int, CallReader] = {}

    def translate(self, chunk: Json) -> list[Json]:
        """The chunks to send for this one, in order; one without choices (usage) stays as is."""
        if not chunk.get("choices"):
            return [chunk]
        return [
            {**chunk, "choices": [{"index": choice["index"], "finish_reason": None, **part}]}
            for choice in chunk["choices"]
            for part in self._parts(choice)
        ]

    def _parts(self, choice: Json) -> list[Json]:
        reader = self._readers.setdefault(choice["index"], CallReader())
        delta = choice.get("delta") or {}
        finish = choice.get("finish_reason")
        parts: list[Json] = []
        if "role" in delta:
            parts.append({"delta": {"role": delta["role"], "content": None}})
        was_named = reader.name is not None
        arguments = reader.feed(delta.get("content") or "")
        if finish:
            arguments += reader.close(complete=finish == "stop")
        if reader.name is not None and not was_named:
            function = {"name": reader.name, "arguments": ""}
            call = {"index": 0, "id": reader.call_id, "type": "function", "function": function}
            parts.append({"delta": {"tool_calls": [call]}})
        if arguments:
            call = {"index": 0, "function": {"arguments": arguments}}
            parts.append({"delta": {"tool_calls": [call]}})
        if finish:
            parts.append({"delta": {}, "finish_reason": _finish_reason(finish)})
        return parts


def translate_completion(completion: Json) -> Json:
    """A forced request's answer as OpenAI shapes it: the call in `tool_calls`, no content."""
    return {**completion, "choices": [_translate_choice(c) for c in completion["choices"]]}


def _translate_choice(choice: Json) -> Json:
    reader = CallReader()
    arguments = reader.feed(choice["message"].get("content") or "")
    arguments += reader.close(complete=choice["finish_reason"] == "stop")
    message = {**choice["message"], "content": None}
    if reader.name is not None:
        function = {"name": reader.name, "arguments": arguments}
        message["tool_calls"] = [{"id": reader.call_id, "type": "function", "function": function}]
    return {**choice, "message": message, "finish_reason": _finish_reason(choice["finish_reason"])}


def _finish_reason(reason: str) -> str:
    return "tool_calls" if reason == "stop" else reason


def _with_template_switch(body: Json, switch: str) -> Json:
    return {
        **{key: value for key, value in body.items() if key != "parallel_tool_calls"},
        "chat_template_kwargs": {**(body.get("chat_template_kwargs") or {}), switch: True},
    }


def _is_function(tool: object) -> bool:
    match tool:
        case {"type": "function", "function": {"name": str()}}:
            return True
        case _:
            return False


def _parameters(tool: Json, root: str) -> Json:
    """A tool's parameter schema to stand at `root`; one without properties takes no arguments."""
    schema = tool["function"].get("parameters") or {}
    if not any(schema.get(key) for key in ("properties", "$ref", "anyOf", "oneOf", "allOf")):
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {key: _rebased(key, value, root) for key, value in schema.items()}


def _rebased(key: str, value: object, root: str) -> object:
    match value:
        case str() if key == "$ref" and value.startswith("#"):
            return root + value[1:]
        case dict():
            return {inner: _rebased(inner, value[inner], root) for inner in value}
        case list():
            return [_rebased("", item, root) for item in value]
        case _:
            return value


def _last_user_text(body: Json) -> str:
    match body["messages"][-1]:
        case {"role": "user", "content": str(text)}:
            return text
        case {"role": "user", "content": [*parts]}:
            return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
        case _:
            return ""


def _words(text: str) -> str:
    """The text's words in lower case, a space around each, so that `get-sum` equals `Get sum`."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _names(words: str, tool_name: str) -> bool:
    """Whether the words hold a tool's name, without the server's part of `server__name`."""
    return _words(tool_name.rsplit("__", maxsplit=1)[-1]) in words
