"""One view of a request, whichever dialect it came in; refuses what the real API refuses."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from tests.upstream.answers import Json, count_tokens
from tests.upstream.refusals import invalid

# Codex sends its client metadata; the package does not type it.
RESPONSES_PARAMS = frozenset(ResponseCreateParamsBase.__annotations__) | {
    "client_metadata",
    "stream",
}
CHAT_PARAMS = frozenset(CompletionCreateParamsBase.__annotations__) | {"stream"}
_INSTRUCTORS = ("system", "developer")
_OUTPUT_OF = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}


@dataclass(frozen=True)
class Message:
    """A message with its text and the number of things attached to it."""

    role: str
    text: str
    attachments: int = 0


@dataclass(frozen=True)
class Tool:
    """A tool that the client offers to run."""

    name: str
    schema: Json
    custom: bool = False


@dataclass(frozen=True)
class ToolOutput:
    """What the client says a call returned."""

    name: str
    text: str


@dataclass(frozen=True)
class Dialogue:
    """A request as scripts see it.

    `outputs` are the tool outputs after the last user message, in order. `top_logprobs` is None
    when log probabilities were not asked for.
    """

    model: str
    messages: tuple[Message, ...]
    instructions: str = ""
    outputs: tuple[ToolOutput, ...] = ()
    tools: tuple[Tool, ...] = ()
    schema: Json | None = None
    limit: int | None = None
    top_logprobs: int | None = None
    metadata: Json = field(default_factory=dict)
    tool_choice: Any = "auto"
    other_texts: tuple[str, ...] = ()

    @property
    def last_user(self) -> Message:
        """The message that a plain client just wrote; an empty one when there is none."""
        users = [message for message in self.messages if message.role == "user"]
        return users[-1] if users else Message("user", "")

    @property
    def prior(self) -> tuple[Message, ...]:
        """The user and assistant messages before the last user message."""
        users = [n for n, message in enumerate(self.messages) if message.role == "user"]
        return self.messages[: users[-1]] if users else self.messages

    @property
    def input_tokens(self) -> int:
        """The size of all that was sent, one token per word."""
        texts = [message.text for message in self.messages]
        return count_tokens([self.instructions, *texts, *self.other_texts])


class _Reader:
    """Collects a dialogue item by item and checks that calls and outputs match."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.instructions: list[str] = []
        self.outputs: list[ToolOutput] = []
        self.other_texts: list[str] = []
        self.open_calls: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def message(self, role: str, content: object) -> None:
        text, attachments = _content(content)
        if role in _INSTRUCTORS:
            self.instructions.append(text)
            return
        if role == "user":
            self.outputs.clear()
        if text or attachments:
            self.messages.append(Message(role, text, attachments))

    def call(self, call_id: str, name: str, arguments: str) -> None:
        self.open_calls[call_id] = self.names[call_id] = name
        self.other_texts.append(arguments)

    def output(self, call_id: str, content: object, param: str) -> None:
        if call_id not in self.names:
            message = f"No tool call found for function call output with call_id {call_id}."
            raise invalid(message, param=param)
        self.open_calls.pop(call_id, None)
        text, _ = _content(content)
        self.outputs.append(ToolOutput(self.names[call_id], text))
        self.other_texts.append(text)

    def finish(self, model: str, param: str) -> Dialogue:
        if self.open_calls:
            missing = ", ".join(self.open_calls)
            raise invalid(f"No tool output found for function call {missing}.", param=param)
        return Dialogue(
            model=model,
            messages=tuple(self.messages),
            instructions="\n".join(text for text in self.instructions if text),
            outputs=tuple(self.outputs),
            other_texts=tuple(self.other_texts),
        )


def from_responses(body: Json, history: Sequence[Json] = ()) -> Dialogue:
    """Read a Responses request; `history` are the items of the stored responses before it."""
    reader = _Reader()
    reader.instructions.append(str(body.get("instructions") or ""))
    with _refused("input"):
        for item in [*history, *input_items(body)]:
            _read_item(reader, item)
    text_format = (body.get("text") or {}).get("format")
    logprobs = "message.output_text.logprobs" in (body.get("include") or ())
    return replace(
        reader.finish(body["model"], "input"),
        tools=tuple(_tools(body.get("tools") or (), nested=False)),
        schema=_schema(text_format),
        limit=body.get("max_output_tokens"),
        top_logprobs=int(body.get("top_logprobs") or 0) if logprobs else None,
        metadata=dict(body.get("metadata") or {}),
        tool_choice=body.get("tool_choice", "auto"),
    )


def from_chat(body: Json) -> Dialogue:
    """Read a Chat Completions request."""
    reader = _Reader()
    with _refused("messages"):
        for message in body["messages"]:
            _read_message(reader, message)
    response_format: Json = body.get("response_format") or {}
    return replace(
        reader.finish(body["model"], "messages"),
        tools=tuple(_tools(body.get("tools") or (), nested=True)),
        schema=_schema(response_format.get("json_schema") or response_format),
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        top_logprobs=int(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
        metadata=dict(body.get("metadata") or {}),
        tool_choice=body.get("tool_choice", "auto"),
    )


def input_items(body: Json) -> list[Json]:
    """The input of a Responses request as items, also when it was written as one string."""
    given = body["input"]
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return list(given)


def check_params(body: object, allowed: frozenset[str], required: str, *, lenient: bool) -> Json:
    """Return the body when it is an object with the parameters the API knows; else 400.

    `required` must be present besides `model`. A lenient check lets unknown parameters pass.
    """
    if not isinstance(body, dict):
        raise invalid("We could not parse the JSON body of your request.")
    for name in ("model", required):
        if not body.get(name):
            message = f"Missing required parameter: '{name}'."
            raise invalid(message, code="missing_required_parameter", param=name)
    unknown = [] if lenient else sorted(set(body) - allowed)
    if unknown:
        message = f"Unknown parameter: '{unknown[0]}'."
        raise invalid(message, code="unknown_parameter", param=unknown[0])
    return body


@contextmanager
def _refused(param: str) -> Iterator[None]:
    """Items of the wrong shape break whatever reads them: answer 400, as the real API does."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise invalid(f"Cannot read '{param}': {error!r}.", param=param) from error


def _read_message(reader: _Reader, message: Json) -> None:
    if message["role"] == "tool":
        reader.output(message["tool_call_id"], message["content"], "messages")
        return
    reader.message(message["role"], message.get("content") or message.get("refusal"))
    for call in message.get("tool_calls") or ():
        reader.call(call["id"], call["function"]["name"], call["function"]["arguments"])


def _read_item(reader: _Reader, item: Json) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        reader.message(item["role"], item["content"])
    elif kind in _OUTPUT_OF:
        arguments = item["arguments"] if kind == "function_call" else item["input"]
        reader.call(item["call_id"], item["name"], arguments)
    elif kind in _OUTPUT_OF.values():
        reader.output(item["call_id"], item["output"], "input")
    elif kind == "reasoning":
        reader.other_texts.extend(part["text"] for part in item.get("summary") or ())


def _content(content: object) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        return "", 0
    texts = [part.get("text") or part.get("refusal") or "" for part in content]
    attached = sum(1 for part in content if "text" not in part and "refusal" not in part)
    return "".join(texts), attached


def _schema(text_format: Json | None) -> Json | None:
    if text_format and text_format.get("type") == "json_object":
        return {"type": "object", "properties": {"text": {"type": "string"}}}
    return text_format.get("schema") if text_format else None


def _tools(offered: Iterable[Json], *, nested: bool) -> Iterable[Tool]:
    for tool in offered:
        kind = tool["type"]
        if kind in ("function", "custom"):
            described = tool[kind] if nested else tool
            yield Tool(described["name"], described.get("parameters") or {}, kind == "custom")
