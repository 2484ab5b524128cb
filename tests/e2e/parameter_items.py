"""What becomes of every kind of input item, content, tool and tool choice, by dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.parameters import (
    CUSTOM,
    FUNCTION,
    MARK,
    MCP,
    ON,
    OTHER,
    PASSED,
    USER,
    Case,
    Fate,
    Json,
    Obeyed,
    Refused,
    Seen,
)

PNG = "data:image/png;base64,iVBORw0KGgo="
_DIRECT = {"type": "direct"}


def _told(role: str, text: str) -> Obeyed:
    return Obeyed(
        lambda seen: any(m["role"] == role and text in str(m["content"]) for m in seen.messages)
    )


def _called(name: str, result: str) -> Obeyed:
    """The model is told of a call with this result."""

    def holds(seen: Seen) -> bool:
        calls = [call for message in seen.messages for call in message.get("tool_calls") or ()]
        results = {m["tool_call_id"]: m["content"] for m in seen.messages if m["role"] == "tool"}
        return any(
            call["function"]["name"] == name and result in results[call["id"]] for call in calls
        )

    return Obeyed(holds)


def _untold() -> Obeyed:
    return Obeyed(lambda seen: len(seen.messages) == 1)


def _item(kind: str, chat: Fate, *items: Json) -> Case:
    return Case("Items", kind, {"input": [USER, *items]}, PASSED, chat)


def _pair(kind: str, name: str, result: str, call: Json, output: Json) -> Iterator[Case]:
    call = {"type": kind, "status": "completed", **call}
    output = {"type": f"{kind}_output", **output}
    for one in (kind, f"{kind}_output"):
        yield _item(one, _called(name, result), call, output)


def _items() -> Iterator[Case]:
    yield _item("message", _told("assistant", "Hm."), {"role": "assistant", "content": "Hm."})
    yield _item("message", _told("system", "Brief."), {"role": "developer", "content": "Brief."})
    yield from _calls()
    thought = {"type": "reasoning_text", "text": "Hm."}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought]}
    back = Obeyed(lambda s: s.messages[1].get("reasoning_content") == "Hm.")
    yield _item("reasoning", back, reasoning, {"role": "assistant", "content": "Yes."})
    foreign = Refused("input[1].encrypted_content")
    yield _item("compaction", foreign, {"type": "compaction", "encrypted_content": "gAAAA"})
    request = {
        "id": "mcpr_1",
        "type": "mcp_approval_request",
        "name": "echo",
        "arguments": "{}",
        "server_label": "everything",
    }
    yield _item("mcp_approval_request", _untold(), request)
    response = {
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "approve": True,
    }
    yield _item("mcp_approval_response", _untold(), response)
    listed = {"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "everything", "tools": []}
    yield _item("mcp_list_tools", _untold(), listed)
    for kind, fields in _UNTOLD.items():
        yield _item(kind, Refused("input[1].type"), {"type": kind, **fields})


_UNTOLD: dict[str, Json] = {
    "additional_tools": {"role": "developer", "tools": []},
    "compaction_trigger": {},
    "configuration_update": {"model": "m"},
    "item_reference": {"id": "msg_1"},
    "program": {"id": "p", "call_id": "p", "code": "1", "fingerprint": "f"},
    "program_output": {"id": "o", "call_id": "p", "result": "1", "status": "completed"},
    "tool_search_call": {"arguments": {}, "call_id": "t"},
    "tool_search_output": {"call_id": "t", "tools": []},
}


def _calls() -> Iterator[Case]:
    function = {"call_id": "a", "name": "f", "arguments": "{}"}
    yield from _pair("function_call", "f", "done", function, {"call_id": "a", "output": "done"})
    custom = {"call_id": "a", "name": "c", "input": "x"}
    yield from _pair("custom_tool_call", "c", "done", custom, {"call_id": "a", "output": "done"})
    shell = {"call_id": "a", "action": {"commands": ["ls"]}, "caller": _DIRECT}
    printed = {"stdout": "done", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
    yield from _pair("shell_call", "shell", "done", shell, {"call_id": "a", "output": [printed]})
    local = {"id": "l", "call_id": "a", "action": {"type": "exec", "command": ["ls"], "env": {}}}
    yield from _pair(
        "local_shell_call", "local_shell", "done", local, {"id": "a", "output": "done"}
    )
    patch = {"call_id": "a", "operation": {"type": "delete_file", "path": "x"}}
    yield from _pair(
        "apply_patch_call",
        "apply_patch",
        "completed: done",
        patch,
        {"call_id": "a", "status": "completed", "output": "done"},
    )
    wait = {"id": "cu", "call_id": "a", "action": {"type": "wait"}, "pending_safety_checks": []}
    shot = {"call_id": "a", "output": {"type": "computer_screenshot", "image_url": PNG}}
    yield from _pair("computer_call", "computer", "attaches", wait, shot)
    for kind, name, fields in (
        ("file_search_call", "file_search", {"queries": ["q"], "results": [{"text": "done"}]}),
        (
            "web_search_call",
            "web_search",
            {"action": {"type": "search", "query": "q", "sources": [{"url": "done"}]}},
        ),
        (
            "code_interpreter_call",
            "code_interpreter",
            {"code": "1", "container_id": "c", "outputs": [{"type": "logs", "logs": "done"}]},
        ),
        (
            "image_generation_call",
            "image_generation",
            {"result": None, "error": {"message": "done"}},
        ),
        (
            "mcp_call",
            "echo",
            {"server_label": "s", "name": "echo", "arguments": "{}", "output": "done"},
        ),
    ):
        item = {"id": "x", "type": kind, "status": "completed", **fields}
        yield _item(kind, _called(name, "done"), item)


def _contents() -> Iterator[Case]:
    def content(part: Json) -> Json:
        return {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": f"say: ok ; {MARK}"}, part],
                }
            ]
        }

    def last(expected: Json) -> Obeyed:
        return Obeyed(lambda s: s.messages[-1]["content"][-1] == expected)

    text = {"type": "input_text", "text": "x"}
    yield Case("Content", "input_text", content(text), PASSED, last({"type": "text", "text": "x"}))
    image = {"type": "input_image", "image_url": PNG, "detail": "low"}
    told: Json = {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}
    yield Case("Content", "input_image", content(image), PASSED, last(told))
    file = {
        "type": "input_file",
        "file_data": "data:application/pdf;base64,JVBERi0=",
        "filename": "a",
    }
    sent = {"type": "file", "file": {k: v for k, v in file.items() if k != "type"}}
    yield Case("Content", "input_file", content(file), PASSED, last(sent))


def _tool(name: str, tool: Json, responses: Fate, chat: Fate, **beside: Any) -> Case:
    return Case("Tools", name, {"tools": [tool], **beside}, responses, chat)


def _hosted() -> dict[str, Json]:
    return {
        "apply_patch": {},
        "code_interpreter": {"container": {"type": "auto"}},
        "computer": {},
        "computer_use_preview": {
            "display_height": 1,
            "display_width": 1,
            "environment": "browser",
        },
        "file_search": {"vector_store_ids": ["vs_1"]},
        "image_generation": {},
        "local_shell": {},
        "namespace": {"name": "n", "description": "d", "tools": []},
        "programmatic_tool_calling": {},
        "shell": {},
        "tool_search": {},
        "web_search": {},
        "web_search_2025_08_26": {},
        "web_search_preview": {},
        "web_search_preview_2025_03_11": {},
    }


def _functions(seen: Seen) -> list[Json]:
    return [tool["function"] for tool in seen.body.get("tools") or ()]


def _tools() -> Iterator[Case]:
    offered = Obeyed(lambda s: [f["name"] for f in _functions(s)] == ["f"])
    yield _tool("function", FUNCTION, PASSED, offered)
    free = Obeyed(lambda s: _functions(s)[0]["parameters"]["required"] == ["input"])
    yield _tool("custom", CUSTOM, PASSED, free)
    listed = Obeyed(lambda s: "mcp_list_tools" in s.types())
    yield _tool("mcp", MCP, listed, listed)
    for kind, fields in _hosted().items():
        yield _tool(kind, {"type": kind, **fields}, PASSED, Refused("tools[0].type"))
    yield from _function_fields()
    yield from _custom_fields()


def _function_fields() -> Iterator[Case]:
    def field(name: str, value: Any, chat: Fate) -> Case:
        return _tool(f"function.{name}", {**FUNCTION, name: value}, PASSED, chat)

    def told(name: str, value: Any) -> Obeyed:
        return Obeyed(lambda s: _functions(s)[0][name] == value)

    schema = {"type": "object", "properties": {}}
    yield field("name", "f", told("name", "f"))
    yield field("description", "Does it.", told("description", "Does it."))
    yield field("parameters", schema, told("parameters", schema))
    yield field("strict", ON, told("strict", ON))
    yield field("allowed_callers", ["direct"], told("name", "f"))
    for name, value in (
        ("async", True),
        ("allowed_callers", ["programmatic"]),
        ("defer_loading", True),
        ("output_schema", schema),
    ):
        yield field(name, value, Refused(f"tools[0].{name}"))


def _custom_fields() -> Iterator[Case]:
    def field(name: str, value: Any, chat: Fate) -> Case:
        return _tool(f"custom.{name}", {**CUSTOM, name: value}, PASSED, chat)

    def grammar(syntax: str, definition: str) -> Json:
        return {"type": "grammar", "syntax": syntax, "definition": definition}

    named = Obeyed(lambda s: _functions(s)[0]["name"] == "c")
    held = Obeyed(lambda s: '"^(?:[a-z]+)$"' in json.dumps(_functions(s)[0]["parameters"]))
    yield field("name", "c", named)
    yield field("description", "x", Obeyed(lambda s: _functions(s)[0]["description"] == "x"))
    yield field("format", {"type": "text"}, named)
    yield field("format", grammar("regex", "[a-z]+"), held)
    yield field("format", grammar("lark", "start: /a/"), Refused("tools[0].format"))
    yield field("allowed_callers", ["programmatic"], Refused("tools[0].allowed_callers"))
    yield field("defer_loading", ON, Refused("tools[0].defer_loading"))
    yield field("async", ON, Refused("tools[0].async"))


def _choices() -> Iterator[Case]:
    def choice(name: str, value: Any, responses: Fate, chat: Fate, *tools: Json) -> Case:
        request = {"tool_choice": value, "tools": list(tools) or [FUNCTION, OTHER]}
        return Case("Tool choice", name, request, responses, chat)

    def sent(value: Any) -> Obeyed:
        return Obeyed(lambda s: s.received[0]["tool_choice"] == value)

    for option in ("none", "auto", "required"):
        yield choice(option, option, PASSED, sent(option))
    named = {"type": "function", "function": {"name": "f"}}
    yield choice("function", {"type": "function", "name": "f"}, PASSED, sent(named))
    custom = {"type": "function", "function": {"name": "c"}}
    yield choice("custom", {"type": "custom", "name": "c"}, PASSED, sent(custom), CUSTOM)
    of_mcp = Obeyed(lambda s: s.received[0]["tool_choice"]["type"] == "function")
    chosen = {"type": "mcp", "server_label": "everything", "name": "echo"}
    yield choice("mcp", chosen, of_mcp, of_mcp, MCP)
    allowed = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "g"}],
    }
    only = Obeyed(lambda s: [f["name"] for f in _functions(s)] == ["g"])
    yield choice("allowed_tools", allowed, PASSED, only)
    for kind in (
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "programmatic_tool_calling",
        "shell",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    ):
        yield choice(kind, {"type": kind}, PASSED, Refused("tool_choice"))


def all_cases() -> list[Case]:
    """All cases of this module."""
    return [*_items(), *_contents(), *_tools(), *_choices()]
