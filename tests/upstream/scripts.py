"""Choosing the answer to a dialogue: named scripts, the tool loop and the default echo."""

import re
from collections.abc import Callable
from dataclasses import replace

import orjson

from tests.upstream import samples
from tests.upstream.answers import (
    Answer,
    Call,
    Finish,
    Hosted,
    Json,
    Part,
    Refuse,
    Say,
    Think,
    say,
)
from tests.upstream.dialogue import Dialogue, Tool
from tests.upstream.language import CallSpec, Directives
from tests.upstream.refusals import invalid

UNICODE = "Grüße 👩‍👩‍👧 日本語 नमस्ते 🇪🇺 é “quoted” \u2028 end"
PLAIN = "The quick brown fox jumps over the lazy dog."
CITATION: Json = {
    "type": "url_citation",
    "url": "https://example.com/fox",
    "title": "Foxes",
    "start_index": 4,
    "end_index": 19,
}
_FILE_CITATIONS: tuple[Json, ...] = (
    {"type": "file_citation", "file_id": "file-1", "filename": "fox.txt", "index": 43},
    {"type": "file_path", "file_id": "file-2", "index": 43},
    {
        "type": "container_file_citation",
        "container_id": "cntr_1",
        "file_id": "cfile_1",
        "filename": "fox.csv",
        "start_index": 4,
        "end_index": 9,
    },
)
_THOUGHT = Think(
    text="First look at the question. Then answer it.",
    summaries=("**Looking** at the question.", "**Answering** it."),
)
_DEFAULT_TOOL = Tool("get_weather", {"properties": {"city": {"type": "string"}}})
_NO_USAGE: Json = {}

# Each of these becomes one hosted item, followed by a text as the real API would write one.
HOSTED = (
    "web_search",
    "file_search",
    "code_interpreter",
    "image",
    "image_big",
    "image_failed",
    "mcp",
    "mcp_failed",
    "mcp_list_failed",
    "mcp_approval",
    "audio",
    "shell",
    "compaction",
)


def answer_for(dialogue: Dialogue, wanted: Directives) -> Answer:
    """The answer to a dialogue. Raises RefusalError (400) when a script does not exist."""
    answer = _choose(dialogue, wanted)
    return replace(answer, usage=wanted.usage or _NO_USAGE)


def _choose(dialogue: Dialogue, wanted: Directives) -> Answer:
    if wanted.rounds:
        return _tool_loop(dialogue, wanted)
    if wanted.script is not None:
        return _named(dialogue, wanted.script, wanted.argument)
    if wanted.tokens is not None:
        return say(" ".join(f"w{number}" for number in range(wanted.tokens)))
    if wanted.say is not None:
        return say(wanted.say)
    if dialogue.schema is not None:
        return say(_json(dialogue))
    if dialogue.outputs:
        return say(_outputs(dialogue))
    user = dialogue.last_user
    attached = f" [+{user.attachments}]" if user.attachments else ""
    return say(f"echo: {user.text}{attached}")


def _tool_loop(dialogue: Dialogue, wanted: Directives) -> Answer:
    """Answer with the first round of calls that has no outputs yet, else with the outputs."""
    answered = len(dialogue.outputs)
    for calls in wanted.rounds:
        if answered < len(calls):
            return _calls(dialogue, calls)
        answered -= len(calls)
    outputs = _outputs(dialogue)
    return say(outputs if wanted.say is None else wanted.say.replace("{output}", outputs))


def _calls(dialogue: Dialogue, wanted: tuple[CallSpec, ...]) -> Answer:
    found: list[Part] = []
    for call in wanted:
        tool = Tool(call.name, {}) if call.forced else find_tool(dialogue, call.name)
        if tool is None or (dialogue.tool_choice == "none" and not call.forced):
            offered = ", ".join(tool.name for tool in dialogue.tools) or "none"
            return say(f"cannot call {call.name}; tools offered: {offered}")
        found.append(Call(tool.name, call.arguments, tool.custom))
    return Answer(tuple(found))


def find_tool(dialogue: Dialogue, name: str) -> Tool | None:
    """The offered tool of that name, or the only one whose prefixed name ends in it."""
    exact = [tool for tool in dialogue.tools if tool.name == name]
    ending = re.compile(rf".*[^a-zA-Z0-9]{re.escape(name)}")
    suffixed = [tool for tool in dialogue.tools if ending.fullmatch(tool.name)]
    if exact:
        return exact[0]
    return suffixed[0] if len(suffixed) == 1 else None


def _outputs(dialogue: Dialogue) -> str:
    return "\n".join(f"{output.name} -> {output.text}" for output in dialogue.outputs)


def _json(dialogue: Dialogue) -> str:
    value = samples.instance(dialogue.schema or {"type": "object"})
    return orjson.dumps(value).decode()


def _named(dialogue: Dialogue, name: str, argument: str) -> Answer:
    if name in HOSTED:
        ending: Part = Say(argument or f"Done: {name}.")
        return Answer((Hosted(name, argument or dialogue.last_user.text), ending))
    script = SCRIPTS.get(name)
    if script is None:
        known = ", ".join(sorted((*SCRIPTS, *HOSTED)))
        raise invalid(f"No script '{name}'. Scripts: {known}.", code="unknown_script")
    return script(dialogue, argument)


def _first_tool_call(dialogue: Dialogue, number: int = 0) -> Call:
    functions = [tool for tool in dialogue.tools if not tool.custom] or [_DEFAULT_TOOL]
    tool = functions[number % len(functions)]
    value = samples.instance({"type": "object"} | tool.schema, seed=f"value {number}")
    return Call(tool.name, orjson.dumps(value).decode())


def _custom_call(dialogue: Dialogue) -> Call:
    customs = [tool.name for tool in dialogue.tools if tool.custom]
    return Call(customs[0] if customs else "run_sql", "SELECT 1;\nSELECT 2;", custom=True)


def _recall(dialogue: Dialogue, _: str) -> Answer:
    return say("|".join(message.text for message in dialogue.prior))


def _seen(dialogue: Dialogue, _: str) -> Answer:
    seen = {
        "model": dialogue.model,
        "instructions": dialogue.instructions,
        "messages": [[message.role, message.text] for message in dialogue.messages],
        "attachments": sum(message.attachments for message in dialogue.messages),
        "tools": [tool.name for tool in dialogue.tools],
        "outputs": [[output.name, output.text] for output in dialogue.outputs],
        "metadata": dialogue.metadata,
    }
    return say(orjson.dumps(seen).decode())


def _calls_script(*, interleaved: bool) -> Callable[[Dialogue, str], Answer]:
    def script(dialogue: Dialogue, _: str) -> Answer:
        calls = (_first_tool_call(dialogue), _first_tool_call(dialogue, 1))
        return Answer(calls, interleaved=interleaved)

    return script


def _fixed(*parts: Part, finish: Finish = "stop") -> Callable[[Dialogue, str], Answer]:
    return lambda _, __: Answer(parts, finish=finish)


def _failing(*parts: Part, finish: Finish) -> Callable[[Dialogue, str], Answer]:
    def script(_: Dialogue, argument: str) -> Answer:
        return Answer(parts, finish=finish, error_code=argument or "server_error")

    return script


def _everything(dialogue: Dialogue, _: str) -> Answer:
    working = ("audio", "compaction")
    hosted = tuple(Hosted(kind, "everything") for kind in HOSTED if kind not in working)
    last = (_custom_call(dialogue), _first_tool_call(dialogue))
    return Answer((_THOUGHT, *hosted, Say(PLAIN, annotations=(CITATION,)), *last))


SCRIPTS: dict[str, Callable[[Dialogue, str], Answer]] = {
    "text": lambda _, argument: say(argument or PLAIN),
    "unicode": _fixed(Say(UNICODE)),
    "empty": _fixed(),
    "long": lambda _, argument: say(" ".join(["lorem"] * int(argument or 200))),
    "huge": lambda _, argument: say("x" * int(argument or 700 * 1024)),
    "logprobs": _fixed(Say(PLAIN, logprobs=True)),
    "annotations": _fixed(Say(PLAIN, annotations=(CITATION, *_FILE_CITATIONS))),
    "refusal": _fixed(Refuse("I'm sorry, I can't help with that.")),
    "reasoning": _fixed(_THOUGHT, Say(PLAIN)),
    "reasoning_alias": _fixed(replace(_THOUGHT, chat_field="reasoning"), Say(PLAIN)),
    "reasoning_encrypted": _fixed(Think(encrypted="gAAAAAB-scripted"), Say(PLAIN)),
    "phases": _fixed(Say("Let me look.", phase="commentary"), Say(PLAIN, phase="final_answer")),
    "function_call": lambda dialogue, _: Answer((_first_tool_call(dialogue),)),
    "text_and_call": lambda dialogue, _: Answer((Say(PLAIN), _first_tool_call(dialogue))),
    "parallel_calls": _calls_script(interleaved=False),
    "interleaved_calls": _calls_script(interleaved=True),
    "bad_arguments": _fixed(Call("get_weather", '{"city": "Par')),
    "custom_tool": lambda dialogue, _: Answer((_custom_call(dialogue),)),
    "json": lambda dialogue, _: say(_json(dialogue)),
    "recall": _recall,
    "instructions": lambda dialogue, _: say(dialogue.instructions),
    "seen": _seen,
    "queued": lambda _, __: Answer((Say(PLAIN),), queued=True),
    "incomplete": _fixed(Say("The quick brown"), finish="length"),
    "content_filter": _fixed(Say("The quick"), finish="content_filter"),
    "failed": _failing(Say(PLAIN), finish="failed"),
    "failed_early": _failing(finish="failed"),
    "error": _failing(Say("The quick"), finish="error"),
    "everything": _everything,
}
