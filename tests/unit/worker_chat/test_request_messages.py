"""Items of the Responses API become chat messages."""

from typing import Any

import pytest

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.request import to_chat_request
from services.worker.errors import RequestRefusedError

Item = dict[str, Any]


def messages(*items: Item, **request: Any) -> list[dict[str, Any]]:
    translated: list[dict[str, Any]] = to_chat_request(request, list(items), model="m")["messages"]
    return translated


def user(content: Any = "Hi") -> Item:
    return {"type": "message", "role": "user", "content": content}


def assistant(text: str) -> Item:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def function_call(call_id: str, arguments: str = "{}") -> Item:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments}


def function_output(call_id: str, output: Any = "done") -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def mcp_call(item_id: str, **fields: Any) -> Item:
    return {
        "type": "mcp_call",
        "id": item_id,
        "server_label": "s",
        "name": "echo",
        "arguments": '{"a":1}',
    } | fields


def told_call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def told_calls(*call_ids: str, content: str | None = None) -> dict[str, Any]:
    calls = [told_call(call_id) for call_id in call_ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def told_result(call_id: str, content: str = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def told(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_instructions_come_first_as_the_system_message() -> None:
    assert messages(user(), instructions="Be brief.") == [
        told("system", "Be brief."),
        told("user", "Hi"),
    ]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_texts_at_the_beginning_become_one_message(role: str) -> None:
    item = {"role": role, "content": [{"type": "input_text", "text": "In French."}]}

    assert messages(item, user(), instructions="Be brief.") == [
        told("system", "Be brief.\n\nIn French."),
        told("user", "Hi"),
    ]


def test_a_developer_message_later_on_is_a_system_message_there() -> None:
    later = {"role": "developer", "content": "Now in French."}

    assert messages(user(), later) == [told("user", "Hi"), told("system", "Now in French.")]


def test_an_item_with_a_role_needs_no_type() -> None:
    assert messages({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}) == [
        told("user", "a"),
        told("assistant", "b"),
    ]


PARTS = {
    "an image by address or data": (
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"},
        },
    ),
    "a file with its data": (
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,A"},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,A", "filename": "a.pdf"},
        },
    ),
    "audio": (
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ),
    "text with a mark for the prompt cache": (
        {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ),
}


@pytest.mark.parametrize(("part", "expected"), PARTS.values(), ids=PARTS.keys())
def test_a_user_can_send(part: Item, expected: Item) -> None:
    text = {"type": "input_text", "text": "Look:"}

    content = [{"type": "text", "text": "Look:"}, expected]
    assert messages(user([text, part])) == [told("user", content)]
    assert messages(user([part])) == [told("user", [expected])]


def test_a_single_text_part_becomes_a_string() -> None:
    assert messages(user([{"type": "input_text", "text": "Hi"}])) == [told("user", "Hi")]


def test_a_refusal_in_the_history_is_what_the_assistant_said() -> None:
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}

    assert messages(user(), refused)[1] == told("assistant", "No.")


def test_parallel_calls_become_one_assistant_message_with_its_results_after_it() -> None:
    items = [
        user(),
        function_call("a"),
        function_call("b"),
        function_output("b", "2"),
        function_output("a", "1"),
    ]

    assert messages(*items)[1:] == [
        told_calls("a", "b"),
        told_result("a", "1"),
        told_result("b", "2"),
    ]


def test_text_before_the_calls_of_a_turn_joins_them() -> None:
    items = [
        user(),
        assistant("Let me"),
        assistant("look."),
        function_call("a"),
        function_output("a"),
        assistant("Done."),
    ]

    assert messages(*items)[1:] == [
        told_calls("a", content="Let me\nlook."),
        told_result("a"),
        told("assistant", "Done."),
    ]


def test_calls_of_different_turns_stay_apart() -> None:
    items = [function_call("a"), function_output("a"), function_call("b"), function_output("b")]

    assert messages(user(), *items)[1:] == [
        told_calls("a"),
        told_result("a"),
        told_calls("b"),
        told_result("b"),
    ]


def test_a_call_id_used_again_in_a_later_turn_gets_its_own_output() -> None:
    items = [
        function_call("a"),
        function_output("a", "1"),
        function_call("a"),
        function_output("a", "2"),
    ]

    results = [m["content"] for m in messages(user(), *items) if m["role"] == "tool"]
    assert results == ["1", "2"]


def test_a_call_without_arguments_is_told_with_an_empty_object() -> None:
    told_message = messages(user(), function_call("a", ""), function_output("a"))[1]

    assert told_message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_an_output_in_parts_is_told_as_text() -> None:
    output = [{"type": "input_text", "text": "1"}, {"type": "input_text", "text": "2"}]

    assert messages(function_call("a"), function_output("a", output))[1] == told_result("a", "1\n2")


def test_images_a_tool_returned_follow_as_a_user_message() -> None:
    output = [
        {"type": "input_text", "text": "a chart"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    items = [
        function_call("a"),
        function_call("b"),
        function_output("a", output),
        function_output("b"),
    ]

    assert messages(*items)[1:] == [
        told_result("a", "a chart\n(The user attaches the rest.)"),
        told_result("b"),
        told(
            "user",
            [
                {"type": "text", "text": "Attached by tool call a:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        ),
    ]


def test_a_custom_call_is_told_as_a_function_with_one_input() -> None:
    items = [
        {"type": "custom_tool_call", "call_id": "a", "name": "shell", "input": 'echo "é"'},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "é"},
    ]

    assert messages(*items) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [told_call("a", "shell", '{"input": "echo \\"é\\""}')],
        },
        told_result("a", "é"),
    ]


MCP_RESULTS = {
    "output": ({"output": "fine", "error": None}, "fine"),
    "nothing": ({"output": None}, ""),
    "an error in words": ({"error": "it broke"}, "Error: it broke"),
    "a protocol error": (
        {"error": {"type": "mcp_protocol_error", "code": 1, "message": "no such tool"}},
        "Error: no such tool",
    ),
    "an error of the tool": (
        {"error": {"type": "mcp_tool_execution_error", "content": [{"text": "é"}]}},
        'Error: [{"text": "é"}]',
    ),
}


@pytest.mark.parametrize(("fields", "content"), MCP_RESULTS.values(), ids=MCP_RESULTS.keys())
def test_an_mcp_call_is_told_as_a_call_with_its_result(fields: Item, content: str) -> None:
    assert messages(user(), mcp_call("mcp_1", **fields), assistant("So."))[1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [told_call("mcp_1", "echo", '{"a":1}')],
        },
        told_result("mcp_1", content),
        told("assistant", "So."),
    ]


def test_an_mcp_call_next_to_a_call_of_the_client_shares_its_turn() -> None:
    items = [
        function_call("a"),
        mcp_call("mcp_1", output="1"),
        assistant("Wait."),
        function_output("a"),
    ]

    roles = [(m["role"], m.get("tool_call_id")) for m in messages(user(), *items)]
    assert roles == [
        ("user", None),
        ("assistant", None),
        ("tool", "a"),
        ("tool", "mcp_1"),
        ("assistant", None),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "reasoning",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
    ],
)
def test_items_that_only_their_maker_understands_are_left_out(kind: str) -> None:
    item = {"type": kind, "id": "x_1", "summary": []}

    assert messages(user(), item, assistant("Yes.")) == [
        told("user", "Hi"),
        told("assistant", "Yes."),
    ]


def test_a_reasoning_item_does_not_part_the_text_of_a_turn_from_its_calls() -> None:
    items = [
        assistant("Hm."),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        function_call("a"),
        function_output("a"),
    ]

    assert messages(*items)[0] == told_calls("a", content="Hm.")


REFUSED = {
    "input[1].type": {"type": "item_reference", "id": "msg_1"},
    "input[1].type ": {"id": "msg_1"},
    "input[1].type  ": {
        "type": "program",
        "id": "p",
        "call_id": "a",
        "code": "",
        "fingerprint": "",
    },
    "input[1].output.image_url": {
        "type": "computer_call_output",
        "call_id": "a",
        "output": {"type": "computer_screenshot", "file_id": "file_1"},
    },
    "input[1].encrypted_content": {"type": "compaction", "encrypted_content": "x"},
    "input[1].role": {"role": "critic", "content": "Meh."},
    "input[1].content": user(None),
    "input[1].content[0]": user([{"type": "input_video", "video_url": "x"}]),
    "input[1].content[0] ": {
        "role": "system",
        "content": [{"type": "input_image", "image_url": "x"}],
    },
    "input[1].content[0].file_id": user([{"type": "input_image", "file_id": "file_1"}]),
    "input[1].content[0].file_id ": user([{"type": "input_file", "file_id": "file_1"}]),
    "input[1].content[0].file_url": user([{"type": "input_file", "file_url": "https://x"}]),
    "input[1].content[0].file_data": user([{"type": "input_file", "filename": "a"}]),
    "input[1].content[0].image_url": user([{"type": "input_image"}]),
    "input[1].content[0].input_audio": user([{"type": "input_audio"}]),
    "input[1].call_id": {"type": "function_call_output", "output": "x"},
    "input[1].arguments": {"type": "function_call", "call_id": "a", "name": "f"},
    "input[1].output[0].file_url": function_output(
        "a", [{"type": "input_file", "file_url": "https://x"}]
    ),
}


@pytest.mark.parametrize(("param", "item"), REFUSED.items(), ids=[p.strip() for p in REFUSED])
def test_what_chat_cannot_say_is_refused_by_name(param: str, item: Item) -> None:
    with pytest.raises(UnsupportedParameterError) as refusal:
        messages(user(), item)

    assert refusal.value.param == param.strip()
    assert refusal.value.status == 400
    assert not refusal.value.retryable


def test_a_call_without_output_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="No tool output found for function call a"):
        messages(user(), function_call("a"), user())


def test_an_output_without_call_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match=r"No tool call found .* with call_id a"):
        messages(user(), function_output("a"))
