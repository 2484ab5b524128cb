"""What an answer consists of, independent of the dialect that will carry it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]
Finish: TypeAlias = Literal["stop", "length", "content_filter", "failed", "error"]


@dataclass(frozen=True)
class Say:
    """Text of the assistant, streamed word by word."""

    text: str
    logprobs: bool = False
    annotations: tuple[Json, ...] = ()
    phase: Literal["commentary", "final_answer"] | None = None


@dataclass(frozen=True)
class Refuse:
    """A refusal in place of text."""

    text: str


@dataclass(frozen=True)
class Think:
    """Reasoning: raw text, summaries of it, and the name of the field that chat streams it in."""

    text: str = ""
    summaries: tuple[str, ...] = ()
    encrypted: str | None = None
    chat_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"


@dataclass(frozen=True)
class Call:
    """A call of a tool that the client runs; `arguments` is passed on as written, valid or not."""

    name: str
    arguments: str
    custom: bool = False


@dataclass(frozen=True)
class Hosted:
    """An item that only the Responses dialect can carry, by the name of its builder."""

    kind: str
    argument: str = ""


Part: TypeAlias = Say | Refuse | Think | Call | Hosted


@dataclass(frozen=True)
class Answer:
    """Parts in order, and how the answer ends; `queued` adds the event of background runs."""

    parts: tuple[Part, ...]
    finish: Finish = "stop"
    queued: bool = False
    interleaved: bool = False
    usage: Json = field(default_factory=dict)
    error_code: str = "server_error"
    error_message: str = "The scripted upstream failed on request."


def say(text: str) -> Answer:
    """The answer that is one text."""
    return Answer((Say(text),))


def pieces(text: str) -> list[str]:
    """Split a text into tokens, words with the space before them; joined they are the text."""
    return re.findall(r"\s*\S+|\s+\Z", text)


def chunks(text: str, size: int = 5) -> list[str]:
    """Split a text every `size` characters, as arguments and code are streamed."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def count_tokens(texts: Sequence[str]) -> int:
    """One token per word: the measure of every usage this server reports."""
    return sum(len(pieces(text)) for text in texts)


def truncated(answer: Answer, limit: int | None) -> Answer:
    """Cut the visible text after `limit` tokens; a cut answer finishes with `length`."""
    if limit is None:
        return answer
    kept: list[Part] = []
    left = limit
    for part in answer.parts:
        if isinstance(part, Say):
            words = pieces(part.text)
            if len(words) > left:
                kept.append(replace(part, text="".join(words[:left]), annotations=()))
                return replace(answer, parts=tuple(kept), finish="length")
            left -= len(words)
        kept.append(part)
    return answer


def spoken(answer: Answer) -> tuple[list[str], list[str]]:
    """The texts that count as output and, among them, those that count as reasoning."""
    output: list[str] = []
    reasoning: list[str] = []
    for part in answer.parts:
        match part:
            case Say(text=text) | Refuse(text=text) | Call(arguments=text):
                output.append(text)
            case Think():
                reasoning.extend((*part.summaries, part.text))
            case Hosted():
                output.append(part.kind)
    return output + reasoning, reasoning
