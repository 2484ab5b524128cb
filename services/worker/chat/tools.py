"""Tools and the choice among them, as Chat Completions words them."""

from __future__ import annotations

from typing import Any

from services.worker.chat.errors import UnsupportedParameterError

Tool = dict[str, Any]
_CHOICES = frozenset({"auto", "none", "required"})
_FUNCTION_FIELDS = frozenset({"type", "name", "description", "parameters", "strict"})
_CUSTOM_FIELDS = frozenset({"type", "name", "description", "format"})
# A custom tool takes free text. Functions take objects, so the text travels in one field.
_CUSTOM_PARAMETERS = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def custom_tool_names(request: dict[str, Any]) -> frozenset[str]:
    """Return the names of the request's tools whose calls are custom tool calls."""
    tools = request.get("tools") or ()
    return frozenset(tool["name"] for tool in tools if tool.get("type") == "custom")


def tool_parameters(request: dict[str, Any]) -> dict[str, Any]:
    """Return `tools`, `tool_choice` and `parallel_tool_calls` of the chat request.

    Chat servers refuse the last two without the first, so without tools all three are absent.
    A choice of `allowed_tools` offers only those, which every server obeys.
    """
    tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(request.get("tools") or ())]
    choice = request.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        tools = _allowed(tools, choice)
        choice = choice.get("mode", "auto")
    chosen = _choice(choice, tools)
    if not tools:
        return {}
    parameters: dict[str, Any] = {"tools": tools}
    if chosen is not None:
        parameters["tool_choice"] = chosen
    if request.get("parallel_tool_calls") is not None:
        parameters["parallel_tool_calls"] = request["parallel_tool_calls"]
    return parameters


def _tool(tool: Tool, where: str) -> Tool:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        message = f"Tools of type {kind!r} are not supported by providers of dialect 'chat'."
        raise UnsupportedParameterError(f"{where}.type", message)
    if not isinstance(tool.get("name"), str):
        raise UnsupportedParameterError(f"{where}.name", f"'{where}.name' must be a string.")
    _refuse_others(tool, _FUNCTION_FIELDS if kind == "function" else _CUSTOM_FIELDS, where)
    function: Tool = {"name": tool["name"]}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    if kind == "custom":
        return {"type": "function", "function": function | _custom(tool, where)}
    function["parameters"] = tool.get("parameters") or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _refuse_others(tool: Tool, known: frozenset[str], where: str) -> None:
    """Refuse what a chat function can't say, unless it says nothing anyway."""
    for name, value in tool.items():
        if name not in known and value not in (None, False, ["direct"]):
            message = f"'{where}.{name}' is not supported by providers of dialect 'chat'."
            raise UnsupportedParameterError(f"{where}.{name}", message)


def _custom(tool: Tool, where: str) -> Tool:
    """Return what holds the input of a custom tool: any text, or one that matches a pattern."""
    wanted = tool.get("format") or {}
    if wanted.get("type", "text") == "text":
        return {"parameters": _CUSTOM_PARAMETERS}
    pattern = wanted.get("definition")
    if wanted.get("syntax") != "regex" or not isinstance(pattern, str):
        kind = wanted.get("syntax") or wanted.get("type")
        message = f"A custom tool's input can't be held to a {kind} by providers of dialect 'chat'."
        raise UnsupportedParameterError(f"{where}.format", message)
    held = {"type": "string", "pattern": f"^(?:{pattern})$"}
    return {"parameters": {**_CUSTOM_PARAMETERS, "properties": {"input": held}}, "strict": True}


def _allowed(tools: list[Tool], choice: dict[str, Any]) -> list[Tool]:
    names = [
        _named(tool, f"tool_choice.tools[{number}]", tools)
        for number, tool in enumerate(choice.get("tools") or ())
    ]
    return [tool for tool in tools if tool["function"]["name"] in names]


def _choice(choice: object, tools: list[Tool]) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, dict):
        name = _named(choice, "tool_choice", tools)
        return {"type": "function", "function": {"name": name}}
    if not isinstance(choice, str) or choice not in _CHOICES:
        raise UnsupportedParameterError("tool_choice", f"Unknown tool choice {choice!r}.")
    if choice == "required" and not tools:
        message = "Tool choice 'required' must be specified with 'tools' parameter."
        raise UnsupportedParameterError("tool_choice", message)
    return choice


def _named(choice: dict[str, Any], where: str, tools: list[Tool]) -> str:
    kind, name = choice.get("type"), choice.get("name")
    if kind not in ("function", "custom"):
        message = (
            f"Choosing tools of type {kind!r} is not supported by providers of dialect 'chat'."
        )
        raise UnsupportedParameterError(where, message)
    if not isinstance(name, str) or all(tool["function"]["name"] != name for tool in tools):
        raise UnsupportedParameterError(where, f"Tool choice {name!r} not found in 'tools'.")
    return name
