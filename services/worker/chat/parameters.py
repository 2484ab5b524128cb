"""Sampling, format and bookkeeping parameters; the table of what happens to each.

| parameter of POST /v1/responses              | in the chat request                              |
|----------------------------------------------|--------------------------------------------------|
| input, instructions                          | messages (messages.py)                           |
| tools, tool_choice, parallel_tool_calls      | the same, reworded (tools.py)                    |
| max_output_tokens                            | max_completion_tokens (see below)                |
| text.format, text.verbosity                  | response_format, verbosity                       |
| reasoning.effort                             | reasoning_effort                                 |
| reasoning.summary, .generate_summary         | nothing to ask: the whole reasoning is returned  |
| reasoning.context                            | which reasoning goes back (messages.py)          |
| reasoning.mode                               | refused, unless the default                      |
| include message.output_text.logprobs         | logprobs: true                                   |
| top_logprobs                                 | the same; has a meaning only with the line above |
| include, any other value of the API          | nothing to ask: the chat API has no such output  |
| model                                        | the provider's name of the model                 |
| stream                                       | always a stream with usage                       |
| stream_options.include_obfuscation           | not sent: padded here (obfuscation.py)           |
| truncation                                   | not sent: cut here (truncation.py)               |
| prompt_cache_options.prewarm                 | refused: the answer would not be empty           |
| background, background_options, conversation,| not sent: Antiphon does these itself             |
| max_tool_calls, metadata,                    |                                                  |
| previous_response_id, store                  |                                                  |
| client_metadata                              | not sent: Codex tells OpenAI's metrics by it     |
| access_programs, context_management, image,  | refused, unless they ask for nothing             |
| personality, prompt                          |                                                  |
| messages, functions, function_call, n        | refused: they would contradict what we send      |
| everything else: temperature, top_p, user,   | passed as it stands                              |
| safety_identifier, prompt_cache_*, moderation|                                                  |
| stop, seed, ...                              |                                                  |
| service_tier                                 | by the provider's name for it (worker/policy.py) |

A null is an absent parameter. `max_completion_tokens` goes alone: OpenAI refuses it next to
`max_tokens` and refuses the latter for reasoning models; vLLM, SGLang and llama.cpp (from 2026)
know it. For an older server a client can send `max_tokens` instead, which is passed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from services.worker.chat.errors import UnsupportedParameterError

LOGPROBS = "message.output_text.logprobs"

OWN = frozenset(
    {
        "background",
        "background_options",
        "client_metadata",
        "conversation",
        "max_tool_calls",
        "metadata",
        "model",
        "previous_response_id",
        "store",
        "stream",
        "stream_options",
        "truncation",
    }
)
TRANSLATED = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
    }
)


class _Refusal(NamedTuple):
    reason: str
    harmless: tuple[object, ...] = ()


REFUSED = {
    "access_programs": _Refusal("is not known to providers of dialect 'chat'", ({},)),
    "context_management": _Refusal("is not supported by providers of dialect 'chat'", ([],)),
    "function_call": _Refusal("is not part of the Responses API: use 'tool_choice'"),
    "functions": _Refusal("is not part of the Responses API: use 'tools'"),
    "image": _Refusal(
        "is not supported by providers of dialect 'chat'",
        ({}, {"context_compression": "auto"}, {"context_compression": "disabled"}),
    ),
    "messages": _Refusal("is not part of the Responses API: use 'input'"),
    "n": _Refusal("must be 1", (1,)),
    "prompt": _Refusal("refers to a template that providers of dialect 'chat' don't have"),
    "personality": _Refusal("is not known to providers of dialect 'chat'"),
}
_NOTHING_TO_INCLUDE = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_REASONING = {
    "context": ("auto", "current_turn", "all_turns"),
    "mode": ("standard",),
    "summary": ("auto", "concise", "detailed"),
    "generate_summary": ("auto", "concise", "detailed"),
}


def wants_logprobs(request: dict[str, Any]) -> bool:
    """Say whether the client asked for the log probabilities of the output."""
    return LOGPROBS in (request.get("include") or ())


def plain_parameters(request: dict[str, Any]) -> dict[str, Any]:
    """Return every parameter of the chat request that is neither a message nor a tool.

    Raises UnsupportedParameterError, naming the parameter that can't be obeyed.
    """
    parameters = _translated(request)
    for name, value in request.items():
        if value is None or name in OWN or name in TRANSLATED:
            continue
        refusal = REFUSED.get(name)
        if refusal is None:
            if parameters.setdefault(name, value) != value:
                message = f"'{name}' contradicts the parameter of the Responses API for the same."
                raise UnsupportedParameterError(name, message)
        elif value not in refusal.harmless:
            raise UnsupportedParameterError(name, f"'{name}' {refusal.reason}.")
    return parameters


def _translated(request: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if request.get("max_output_tokens") is not None:
        parameters["max_completion_tokens"] = request["max_output_tokens"]
    parameters |= _text(request.get("text") or {})
    parameters |= _reasoning(request.get("reasoning") or {})
    _check_include(request.get("include") or [])
    if (request.get("prompt_cache_options") or {}).get("prewarm"):
        raise _unknown("prompt_cache_options.prewarm")
    if wants_logprobs(request):
        parameters["logprobs"] = True
        parameters["top_logprobs"] = request.get("top_logprobs") or 0
    return parameters


def _text(text: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in text.items():
        if value is None:
            continue
        if name == "format":
            parameters |= _response_format(value)
        elif name == "verbosity":
            parameters["verbosity"] = value
        else:
            raise _unknown(f"text.{name}")
    return parameters


def _response_format(text_format: dict[str, Any]) -> dict[str, Any]:
    kind = text_format.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind == "json_schema":
        schema = {
            name: value
            for name, value in text_format.items()
            if name != "type" and value is not None
        }
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    message = f"Text format {kind!r} is not supported by providers of dialect 'chat'."
    raise UnsupportedParameterError("text.format", message)


def _reasoning(reasoning: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in reasoning.items():
        if name == "effort":
            if value is not None:
                parameters["reasoning_effort"] = value
        elif value is not None and value not in _REASONING.get(name, ()):
            raise _unknown(f"reasoning.{name}")
    return parameters


def _check_include(include: list[str]) -> None:
    for number, value in enumerate(include):
        if value != LOGPROBS and value not in _NOTHING_TO_INCLUDE:
            raise _unknown(f"include[{number}]")


def _unknown(param: str) -> UnsupportedParameterError:
    message = f"This value of '{param}' is not supported by providers of dialect 'chat'."
    return UnsupportedParameterError(param, message)
