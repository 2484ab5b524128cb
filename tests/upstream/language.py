"""The mini-language that scripts an answer: parsing only, see the package docstring."""

import re
from dataclasses import dataclass

import orjson

from tests.upstream.answers import Json
from tests.upstream.refusals import invalid

_BOUNDARY = re.compile(
    r"(?:\A|\n|\s;)[ \t]*(?P<word>say|script|call!?|then!?|fault|tokens|usage|delay):"
)
_FAULT = re.compile(
    r"(?P<name>[a-z0-9_]+?)(?:@(?P<args>[\d.,]+))?(?:x(?P<times>\d+))?(?:#(?P<key>\S+))?"
)


@dataclass(frozen=True)
class Fault:
    """One fault on demand; `times` limits it to the first attempts, `key` names what is counted."""

    name: str
    args: tuple[float, ...] = ()
    times: int | None = None
    key: str | None = None

    def arg(self, position: int, default: float) -> float:
        """The numeric argument at `position`, else `default`."""
        return self.args[position] if position < len(self.args) else default


@dataclass(frozen=True)
class CallSpec:
    """A wanted tool call; `forced` calls a tool that the request does not offer."""

    name: str
    arguments: str
    forced: bool


@dataclass(frozen=True)
class Directives:
    """Everything that a text asked for."""

    say: str | None = None
    script: str | None = None
    argument: str = ""
    rounds: tuple[tuple[CallSpec, ...], ...] = ()
    tokens: int | None = None
    usage: Json | None = None
    delay_s: float | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether the text says what to answer, not only how to deliver it."""
        chosen = (self.say, self.script, self.tokens)
        return bool(self.rounds) or any(choice is not None for choice in chosen)

    @property
    def empty(self) -> bool:
        """Whether the text was no script at all."""
        return self == Directives()


def parse(text: str) -> Directives:
    """Read the directives in `text`; raises RefusalError (400) when one is malformed."""
    marks = list(_BOUNDARY.finditer(text))
    found: Json = {}
    rounds: list[list[CallSpec]] = []
    faults: list[Fault] = []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        value = text[mark.end() : end].strip()
        word = mark["word"]
        if word.startswith(("call", "then")):
            if word.startswith("then") or not rounds:
                rounds.append([])
            rounds[-1].append(_call(value, forced=word.endswith("!")))
        elif word == "fault":
            faults.append(parse_fault(value))
        else:
            found |= _simple(word, value)
    return Directives(**found, rounds=tuple(map(tuple, rounds)), faults=tuple(faults))


def parse_fault(value: str) -> Fault:
    """Read `name[@number[,number]][xTIMES][#key]`; what follows a space is ignored."""
    match = _FAULT.fullmatch(value.split(maxsplit=1)[0] if value else "")
    if match is None:
        raise invalid(f"Cannot read the fault '{value}'.", code="unknown_fault")
    args = tuple(float(number) for number in (match["args"] or "").split(",") if number)
    times = int(match["times"]) if match["times"] else None
    return Fault(match["name"], args, times, match["key"])


def _simple(word: str, value: str) -> Json:
    try:
        match word:
            case "say":
                return {"say": value}
            case "script":
                name, _, argument = value.partition(" ")
                return {"script": name, "argument": argument.strip()}
            case "tokens":
                return {"tokens": int(value)}
            case "delay":
                return {"delay_s": float(value)}
            case _:
                return {"usage": dict(orjson.loads(value))}
    except ValueError as error:
        raise invalid(f"Cannot read '{word}: {value}'.", code="bad_directive") from error


def _call(value: str, *, forced: bool) -> CallSpec:
    name, _, arguments = value.partition(" ")
    return CallSpec(name, arguments.strip() or "{}", forced)
