"""Tool calls of the real model: forced, named, chosen by the words of the request, streamed."""

import json
from collections.abc import Iterable

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolChoiceOptionParam,
)

from tests.integration.model.tools import ADD, ECHO, PAINT, PING

MODEL = "smollm2-135m"


def ask(
    model: OpenAI,
    text: str,
    tools: Iterable[ChatCompletionFunctionToolParam],
    choice: ChatCompletionToolChoiceOptionParam,
) -> ChatCompletion:
    return model.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        tools=tools,
        tool_choice=choice,
        temperature=0,
        max_completion_tokens=100,
    )


def only_call(answer: ChatCompletion) -> tuple[str, dict[str, object]]:
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.id.startswith("call_")
    return call.function.name, json.loads(call.function.arguments)


def test_a_required_call_carries_the_arguments_of_the_request(model: OpenAI) -> None:
    answer = ask(model, "What is 2 + 3?", [ADD], "required")
    assert only_call(answer) == ("add", {"a": 2, "b": 3})


def test_a_required_call_picks_one_of_several_tools(model: OpenAI) -> None:
    answer = ask(model, "Repeat after me: hello world", [ADD, ECHO], "required")
    name, arguments = only_call(answer)
    assert set(arguments) == ({"message"} if name == "echo" else {"a", "b"})


def test_a_named_function_is_called_whatever_the_request_says(model: OpenAI) -> None:
    choice: ChatCompletionToolChoiceOptionParam = {"type": "function", "function": {"name": "echo"}}
    name, arguments = only_call(ask(model, "What is 2 + 3?", [ADD, ECHO], choice))
    assert name == "echo"
    assert isinstance(arguments["message"], str)


def test_references_in_a_schema_still_bind_the_arguments(model: OpenAI) -> None:
    name, arguments = only_call(ask(model, "Make it blue.", [PAINT], "required"))
    assert name == "paint"
    assert arguments["colour"] in {"red", "green"}


def test_a_tool_without_parameters_is_called_without_arguments(model: OpenAI) -> None:
    assert only_call(ask(model, "Are you there?", [PING], "required")) == ("ping", {})


def test_auto_calls_the_tool_that_the_user_names(model: OpenAI) -> None:
    answer = ask(model, "Use the echo tool to say 'hello world'.", [ADD, ECHO], "auto")
    name, arguments = only_call(answer)
    assert name == "echo"
    assert str(arguments["message"]).lower() == "hello world"


def test_auto_answers_when_the_user_names_no_tool(model: OpenAI) -> None:
    answer = ask(model, "What is the capital of France?", [ADD, ECHO], "auto")
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].message.tool_calls is None


def test_auto_lets_the_model_call_where_the_conversation_shows_it_how(model: OpenAI) -> None:
    conversation: list[ChatCompletionMessageParam] = []
    for number in (2, 7, 5, 1):
        conversation.append({"role": "user", "content": f"What is {number} and 3?"})
        conversation.append(earlier_call("add", {"a": number, "b": 3}))
    conversation.append({"role": "user", "content": "What is 4 and 3?"})
    answer = model.chat.completions.create(
        model=MODEL, messages=conversation, tools=[ADD], temperature=0, max_completion_tokens=60
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "add"
    assert set(json.loads(call.function.arguments)) == {"a", "b"}


def earlier_call(name: str, arguments: dict[str, int]) -> ChatCompletionMessageParam:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
        ],
    }


def test_none_never_calls(model: OpenAI) -> None:
    answer = ask(model, "Use the echo tool to say 'hello world'.", [ADD, ECHO], "none")
    assert answer.choices[0].message.tool_calls is None


def test_a_tool_result_is_answered_in_words(model: OpenAI) -> None:
    conversation: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Use the add tool on 17 and 25."},
        earlier_call("add", {"a": 17, "b": 25}),
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    answer = model.chat.completions.create(
        model=MODEL, messages=conversation, tools=[ADD], temperature=0, max_completion_tokens=60
    )
    assert answer.choices[0].message.tool_calls is None
    assert "42" in (answer.choices[0].message.content or "")


def test_a_streamed_call_gives_its_name_first_and_its_arguments_in_pieces(model: OpenAI) -> None:
    chunks = list(
        model.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Use the echo tool to say 'hello world'."}],
            tools=[ADD, ECHO],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    first, *rest = [call for chunk in chunks for call in streamed_calls(chunk)]
    assert first == ("echo", "")
    assert [name for name, _ in rest] == [None] * len(rest)
    arguments = json.loads("".join(piece for _, piece in rest))
    assert arguments["message"].lower() == "hello world"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None


def streamed_calls(chunk: ChatCompletionChunk) -> list[tuple[str | None, str]]:
    calls = chunk.choices[0].delta.tool_calls if chunk.choices else None
    return [(c.function.name, c.function.arguments or "") for c in calls or [] if c.function]


def test_a_call_cut_short_says_so(model: OpenAI) -> None:
    answer = model.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Use the echo tool to say 'hello world'."}],
        tools=[ECHO],
        temperature=0,
        max_completion_tokens=12,
    )
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([ECHO], {"type": "function", "function": {"name": "nope"}}, "names no tool: nope"),
        ([], "required", "needs tools"),
        ([ECHO], "sometimes", "not supported: sometimes"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(
    model: OpenAI,
    tools: list[ChatCompletionFunctionToolParam],
    choice: ChatCompletionToolChoiceOptionParam,
    message: str,
) -> None:
    with pytest.raises(BadRequestError, match=message) as refusal:
        ask(model, "Hello", tools, choice)
    assert refusal.value.param == "tool_choice"
