"""What other tools, other providers and the model itself said before, as chat messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.worker.chat.request import to_chat_request

Item = dict[str, Any]
PNG = "iVBORw0KGgo="
USER: Item = {"type": "message", "role": "user", "content": "Hi"}
THOUGHT: Item = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
CALL: Item = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
OUTPUT: Item = {"type": "function_call_output", "call_id": "a", "output": "done"}
SAID: Item = {"type": "message", "role": "assistant", "content": "Yes."}


def messages(
    *items: Item, field: str | None = "reasoning_content", **request: Any
) -> list[dict[str, Any]]:
    body = to_chat_request(request, list(items), model="m", reasoning_field=field)
    told: list[dict[str, Any]] = body["messages"]
    return told


WHOLE: dict[str, tuple[Item, str, dict[str, Any], str]] = {
    "code and its logs": (
        {
            "type": "code_interpreter_call",
            "id": "x",
            "code": "1+1",
            "outputs": [{"type": "logs", "logs": "2"}],
        },
        "code_interpreter",
        {"code": "1+1"},
        "2",
    ),
    "code without kept outputs": (
        {"type": "code_interpreter_call", "id": "x", "code": "1+1", "outputs": None},
        "code_interpreter",
        {"code": "1+1"},
        "(The result was not kept.)",
    ),
    "a search in files": (
        {
            "type": "file_search_call",
            "id": "x",
            "queries": ["cats"],
            "results": [{"filename": "a.txt", "text": "Cats purr."}],
        },
        "file_search",
        {"queries": ["cats"]},
        '[{"filename": "a.txt", "text": "Cats purr."}]',
    ),
    "a search in the web": (
        {
            "type": "web_search_call",
            "id": "x",
            "action": {"type": "search", "query": "cats", "sources": [{"url": "https://c"}]},
        },
        "web_search",
        {"type": "search", "query": "cats"},
        '[{"url": "https://c"}]',
    ),
    "an image that failed": (
        {
            "type": "image_generation_call",
            "id": "x",
            "result": None,
            "revised_prompt": "a cat",
            "error": {"message": "no cats"},
        },
        "image_generation",
        {"prompt": "a cat"},
        "Error: no cats",
    ),
}


@pytest.mark.parametrize(("item", "name", "arguments", "result"), WHOLE.values(), ids=WHOLE.keys())
def test_a_tool_of_another_provider_is_told_as_a_call_with_its_result(
    item: Item, name: str, arguments: dict[str, Any], result: str
) -> None:
    _, call, output = messages(USER, item)

    function = call["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == (name, arguments)
    assert output == {"role": "tool", "tool_call_id": "x", "content": result}


def test_an_image_that_was_made_is_shown() -> None:
    item = {"type": "image_generation_call", "id": "x", "result": PNG, "output_format": "webp"}

    *_, shown = messages(USER, item)

    url = f"data:image/webp;base64,{PNG}"
    assert shown["content"][1] == {"type": "image_url", "image_url": {"url": url}}


OPEN: dict[str, tuple[Item, Item, str, str]] = {
    "a shell": (
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a", "stderr": ""}]},
        "shell",
        '[{"stdout": "a", "stderr": ""}]',
    ),
    "a local shell": (
        {"type": "local_shell_call", "id": "l", "call_id": "c", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "c", "output": "a"},
        "local_shell",
        "a",
    ),
    "a patch": (
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file"}},
        {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "gone"},
        "apply_patch",
        "failed: gone",
    ),
    "a computer": (
        {"type": "computer_call", "id": "u", "call_id": "c", "actions": [{"type": "wait"}]},
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA"},
        },
        "computer",
        "(The user attaches the rest.)",
    ),
}


@pytest.mark.parametrize(("call", "output", "name", "result"), OPEN.values(), ids=OPEN.keys())
def test_a_tool_that_clients_run_is_told_as_a_call_and_its_output(
    call: Item, output: Item, name: str, result: str
) -> None:
    _, told_call, told_output, *_ = messages(USER, call, output)

    assert told_call["tool_calls"][0]["id"] == told_output["tool_call_id"] == "c"
    assert told_call["tool_calls"][0]["function"]["name"] == name
    assert told_output["content"] == result


def test_what_the_model_thought_goes_back_to_it_within_the_turn() -> None:
    _, call, _ = messages(USER, THOUGHT, CALL, OUTPUT)

    assert call["reasoning_content"] == "Hm."
    assert messages(USER, THOUGHT, CALL, OUTPUT, field="reasoning")[1]["reasoning"] == "Hm."
    assert not any("Hm." in str(m) for m in messages(USER, THOUGHT, CALL, OUTPUT, field=None))


def test_what_the_model_thought_before_the_last_question_goes_back_only_if_asked_for() -> None:
    earlier = (USER, THOUGHT, SAID, USER)

    assert not any("reasoning_content" in message for message in messages(*earlier))
    kept = messages(*earlier, reasoning={"context": "all_turns"})
    assert kept[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_a_thought_that_came_to_nothing_is_not_told() -> None:
    assert messages(USER, THOUGHT) == [{"role": "user", "content": "Hi"}]
