"""What becomes of every word of `POST /v1/responses`, by dialect: requests, and how to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
ON, OFF = True, False
MARK, PREVIOUS, CONVERSATION = "%mark%", "%previous%", "%conversation%"
"""What a request has in place of this test's mark, of an earlier response and a conversation."""
USER: Json = {"role": "user", "content": f"say: ok ; {MARK}"}
FUNCTION: Json = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
OTHER: Json = {"type": "function", "name": "g", "parameters": {"type": "object"}, "strict": False}
CUSTOM: Json = {"type": "custom", "name": "c", "description": "Any text."}
MCP: Json = {"type": "mcp", "server_label": "everything", "allowed_tools": ["echo"]}
FORMAT: Json = {
    "type": "json_schema",
    "name": "answer",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True)
class Seen:
    """One request and what came of it.

    `received` are the bodies the provider got, `body` the last of them; `answer` is the Response in
    the end, `first` the first answer: the same, a queued Response, or the text of a stream.
    """

    received: list[Json]
    answer: Json
    first: Any
    stored: bool

    @property
    def body(self) -> Json:
        return self.received[-1]

    @property
    def messages(self) -> list[Json]:
        told: list[Json] = self.body["messages"]
        return told

    def types(self) -> list[str]:
        return [item["type"] for item in self.answer["output"]]


@dataclass(frozen=True)
class Passed:
    """The provider gets it as the client wrote it."""


@dataclass(frozen=True)
class Obeyed:
    """It has its effect; `holds` tells."""

    holds: Callable[[Seen], bool]


@dataclass(frozen=True)
class Refused:
    """400, naming the parameter."""

    param: str


Fate = Passed | Obeyed | Refused
PASSED = Passed()


@dataclass(frozen=True)
class Case:
    """A word of the API, in a request that holds it, and its fate with each kind of provider.

    None where the request would show nothing.
    """

    table: str
    name: str
    request: Json
    responses: Fate | None
    chat: Fate | None

    def __str__(self) -> str:
        return f"{self.table}: {self.name}"


def _parameter(
    name: str, value: Any, responses: Fate | None, chat: Fate | None, **beside: Any
) -> Case:
    top, _, inner = name.partition(".")
    return Case(
        "Parameters", name, {top: {inner: value} if inner else value, **beside}, responses, chat
    )


def _chat(**expected: Any) -> Obeyed:
    """The chat request has these fields."""
    return Obeyed(lambda seen: {name: seen.body.get(name) for name in expected} == expected)


def _unsent(name: str) -> Obeyed:
    return Obeyed(lambda seen: name not in seen.body and seen.answer["status"] == "completed")


def _said_before(seen: Seen) -> bool:
    return "earlier" in str(seen.body.get("messages") or seen.body.get("input"))


def _streamed(seen: Seen) -> bool:
    return isinstance(seen.first, str) and seen.first.endswith("data: [DONE]\n\n")


def _obfuscated(seen: Seen) -> bool:
    deltas = [
        line for line in str(seen.first).splitlines() if '.delta"' in line and "data:" in line
    ]
    return bool(deltas) and all('"obfuscation":"' in line for line in deltas)


def _calls_within(seen: Seen) -> bool:
    return [i["status"] for i in seen.answer["output"] if i["type"] == "mcp_call"] == [
        "completed",
        "failed",
    ]


_TWO_CALLS = f'call: echo {{"message": "a"}}\ncall: echo {{"message": "b"}}\n{MARK}'
_BOTH = {"tools": [FUNCTION, OTHER]}
_LOGPROBS = "message.output_text.logprobs"
_LONG = [
    {"role": "user", "content": f"first {MARK}"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": f"fault:contextx1#{MARK} ; say: ok ; {MARK}"},
]


def _parameters() -> Iterator[Case]:
    p = _parameter
    background = Obeyed(lambda s: s.first["status"] == "queued" and "background" not in s.body)
    before = Obeyed(_said_before)
    yield p("access_programs", {"cyber": "standard"}, PASSED, Refused("access_programs"))
    yield p("access_programs.cyber", "standard", PASSED, Refused("access_programs"))
    yield p("background", ON, background, background)
    soonest = _unsent("background_options")
    window = "background_options.completion_window"
    yield p("background_options", {"completion_window": "soonest"}, soonest, soonest)
    yield p(window, "soonest", soonest, soonest)
    yield p(window, "2h", Refused(window), Refused(window), background=True)
    continuation = "background_options.continuation_id"
    yield p(continuation, "x", Refused(continuation), Refused(continuation))
    compaction = [{"type": "compaction", "compact_threshold": 1000}]
    for name in ("", ".type", ".compact_threshold"):
        yield Case(
            "Parameters",
            f"context_management{name}",
            {"context_management": compaction},
            PASSED,
            Refused("context_management"),
        )
    yield p("conversation", CONVERSATION, before, before)
    yield p("conversation.id", CONVERSATION, before, before)
    compressed = {"context_compression": "enabled"}
    yield p("image", compressed, PASSED, Refused("image"))
    yield p("image.context_compression", "enabled", PASSED, Refused("image"))
    yield p("include", [_LOGPROBS], PASSED, _chat(logprobs=True))
    yield p(
        "input",
        f"say: ok ; {MARK}",
        PASSED,
        Obeyed(lambda s: str(s.messages[-1]["content"]).startswith("say: ok")),
    )
    yield from _parameters_on()


def _parameters_on() -> Iterator[Case]:
    p = _parameter
    before = Obeyed(_said_before)
    kept = Obeyed(lambda s: s.answer["metadata"] == {"a": "b"} and "metadata" not in s.body)
    system = Obeyed(lambda s: s.messages[0] == {"role": "system", "content": "Be brief."})
    yield p("instructions", "Be brief.", PASSED, system)
    yield p("max_output_tokens", 20, PASSED, _chat(max_completion_tokens=20))
    yield p("max_tool_calls", 3, PASSED, _unsent("max_tool_calls"))
    limited = Obeyed(_calls_within)
    yield p("max_tool_calls", 1, limited, limited, tools=[MCP], input=_TWO_CALLS)
    yield p("metadata", {"a": "b"}, PASSED, kept)
    yield Case("Parameters", "model", {}, PASSED, PASSED)
    yield from _moderation()
    one = Obeyed(lambda s: s.types() == ["function_call"])
    calls = f"script:parallel_calls ; {MARK}"
    yield p("parallel_tool_calls", OFF, PASSED, one, input=calls, **_BOTH)
    yield p("previous_response_id", PREVIOUS, before, before)
    prompt = {"id": "pmpt_1", "version": "2", "variables": {"a": "b"}}
    yield p("prompt", prompt, PASSED, Refused("prompt"))
    for name in ("id", "version", "variables"):
        yield Case("Parameters", f"prompt.{name}", {"prompt": prompt}, PASSED, Refused("prompt"))
    yield from _caches()
    yield from _reasoning()
    yield from _parameters_after_reasoning()


def _parameters_after_reasoning() -> Iterator[Case]:
    p = _parameter
    yield p("safety_identifier", "dana", PASSED, PASSED)
    for tier in ("auto", "default"):
        yield p("service_tier", tier, PASSED, _unsent("service_tier"))
    for tier in ("flex", "scale", "priority", "fast", "ultrafast"):
        yield p("service_tier", tier, PASSED, Refused("service_tier"))
    unstored = Obeyed(lambda s: not s.stored and "store" not in s.body)
    yield p("store", OFF, PASSED, unstored)
    yield p("stream", ON, Obeyed(_streamed), Obeyed(_streamed))
    padded = {"include_obfuscation": True}
    yield p("stream_options", padded, PASSED, Obeyed(_obfuscated), stream=True)
    name = "stream_options.include_obfuscation"
    yield p(name, ON, PASSED, Obeyed(_obfuscated), stream=True)
    plain = Obeyed(lambda s: '"obfuscation"' not in s.first)
    yield p(name, OFF, PASSED, plain, stream=True)
    yield p("temperature", 0.5, PASSED, PASSED)
    yield p("text", {"verbosity": "low"}, PASSED, _chat(verbosity="low"))
    yield p("text.verbosity", "low", PASSED, _chat(verbosity="low"))
    yield p("text.format", FORMAT, PASSED, _schema())
    forced = _chat(tool_choice={"type": "function", "function": {"name": "f"}})
    choice = {"type": "function", "name": "f"}
    yield p("tool_choice", choice, PASSED, forced, tools=[FUNCTION])
    yield p("tools", [FUNCTION], PASSED, Obeyed(lambda s: _offered(s) == ["f"]))
    yield p("top_logprobs", 2, PASSED, _chat(logprobs=True, top_logprobs=2), include=[_LOGPROBS])
    yield p("top_p", 0.5, PASSED, PASSED)
    yield p("truncation", "disabled", PASSED, _unsent("truncation"))
    cut = Obeyed(lambda s: [len(body["messages"]) for body in s.received] == [3, 1])
    yield p("truncation", "auto", PASSED, _unsent("truncation"))
    yield p("truncation", "auto", None, cut, input=_LONG)
    yield p("user", "dana", PASSED, PASSED)


def _schema() -> Obeyed:
    schema = {name: value for name, value in FORMAT.items() if name != "type"}
    return _chat(response_format={"type": "json_schema", "json_schema": schema})


def _offered(seen: Seen) -> list[str]:
    return [tool["function"]["name"] for tool in seen.body.get("tools") or ()]


def _moderation() -> Iterator[Case]:
    both = {"model": "omni-moderation-latest", "policy": {"input": {"mode": "score"}}}
    for name in ("", ".model", ".policy"):
        yield Case("Parameters", f"moderation{name}", {"moderation": both}, PASSED, PASSED)


def _caches() -> Iterator[Case]:
    p, options = _parameter, "prompt_cache_options"
    yield p("prompt_cache_key", "k", PASSED, PASSED)
    yield p(options, {"mode": "explicit", "ttl": "30m"}, PASSED, PASSED)
    yield p(f"{options}.mode", "implicit", PASSED, PASSED)
    yield p(f"{options}.ttl", "12h", PASSED, PASSED)
    compared = Refused(f"{options}.comparison_response_id")
    yield p(f"{options}.comparison_response_id", "resp_1", compared, compared)
    yield p(f"{options}.prewarm", ON, PASSED, Refused(f"{options}.prewarm"))
    yield p("prompt_cache_retention", "24h", PASSED, PASSED)


def _reasoning() -> Iterator[Case]:
    p = _parameter
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    said = {"role": "assistant", "content": "yes"}
    earlier = [USER, thought, said, USER]
    kept = Obeyed(lambda s: s.messages[1].get("reasoning_content") == "Hm.")
    left = Obeyed(lambda s: "reasoning_content" not in s.messages[1])
    asked = _chat(reasoning_effort="low")
    whole = Obeyed(lambda s: s.types() == ["reasoning", "message"])
    thinking = f"script:reasoning ; {MARK}"
    yield p("reasoning", {"effort": "low"}, PASSED, asked)
    yield p("reasoning.effort", "low", PASSED, asked)
    yield p("reasoning.context", "all_turns", PASSED, kept, input=earlier)
    yield p("reasoning.context", "current_turn", PASSED, left, input=earlier)
    yield p("reasoning.generate_summary", "auto", PASSED, whole, input=thinking)
    yield p("reasoning.summary", "auto", PASSED, whole, input=thinking)
    yield p("reasoning.mode", "pro", PASSED, Refused("reasoning.mode"))
    yield p("reasoning.mode", "standard", PASSED, _unsent("reasoning"))


def _formats() -> Iterator[Case]:
    for kind, wanted, told in (
        ("text", {"type": "text"}, Obeyed(lambda s: "response_format" not in s.body)),
        ("json_schema", FORMAT, _schema()),
        ("json_object", {"type": "json_object"}, _chat(response_format={"type": "json_object"})),
    ):
        yield Case("Formats", kind, {"text": {"format": wanted}}, PASSED, told)


def _includes() -> Iterator[Case]:
    sealed = Obeyed(lambda s: s.answer["output"][0]["encrypted_content"].startswith("antiphon1."))
    for value in (
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    ):
        yield Case("Include", value, {"include": [value]}, PASSED, _unsent("include"))
    encrypted = {"include": ["reasoning.encrypted_content"], "input": f"script:reasoning ; {MARK}"}
    yield Case("Include", "reasoning.encrypted_content", encrypted, PASSED, sealed)
    known = Obeyed(lambda s: bool(s.answer["output"][0]["content"][0]["logprobs"]))
    yield Case("Include", _LOGPROBS, {"include": [_LOGPROBS]}, PASSED, known)


def all_cases() -> list[Case]:
    """All cases of this module."""
    return [*_parameters(), *_formats(), *_includes()]
