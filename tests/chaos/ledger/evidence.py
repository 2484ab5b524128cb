"""What is known after a run, gathered from everywhere and laid out flat: no rules here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.chaos.load.log import MARK, Asked

Json = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A request on `responses.commands`; the same one may be there several times."""

    response_id: str
    mark: str | None
    at: float
    store: bool = True


@dataclass(frozen=True)
class Fact:
    """A terminal fact on `responses.lifecycle`. `at` is the time of its record."""

    response_id: str
    attempt: int
    status: str
    at: float
    digest: str
    response: Json | None = None
    store: bool = True
    provider: str = "openai"
    model: str = ""
    estimated: bool = False


@dataclass(frozen=True)
class Call:
    """A request that the upstream saw: which turn of which request, and what became of it.

    `turn` counts the outputs of tools that it brought along. `finished` says that the whole answer
    was sent; `ended` is None for one that is still open.
    """

    mark: str
    turn: int
    at: float
    ended: float | None = None
    status: int = 200
    finished: bool = True
    events: int = 0
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Execution:
    """One run of the counting tool; `ended` is None when it was killed within."""

    key: str
    execution: str
    begun: float
    ended: float | None


@dataclass(frozen=True)
class ToolResult:
    """A result on `tools.results`."""

    call_id: str
    response_id: str
    output: str
    error: str | None
    at: float


@dataclass(frozen=True)
class Line:
    """A ledger line, as a fact on `costs.recorded` or as a row."""

    line_id: str
    response_id: str
    unit: str
    quantity: int
    unit_price_usd: Decimal | None
    cost_usd: Decimal | None
    unpriced_reason: str | None
    model: str
    tool: str | None
    estimated: bool


@dataclass(frozen=True)
class Row:
    """A response in intake's projection; `response` is its JSON."""

    response_id: str
    status: str
    response: str | None
    deleted: bool


@dataclass(frozen=True)
class Read:
    """What an intake answers to a GET of a response."""

    intake: str
    status: int
    body: Json | None


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact with what its download gave."""

    artifact_id: str
    response_id: str
    sha256: str
    size_bytes: int
    status: int
    content_sha256: str
    content_bytes: int


@dataclass(frozen=True)
class Lease:
    """A row of the worker's leases."""

    response_id: str
    state: str
    attempt: int
    owner: str


@dataclass
class Evidence:
    """Everything that the rules look at."""

    asked: Sequence[Asked] = ()
    commands: list[Command] = field(default_factory=list)
    facts: dict[str, list[Fact]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    rows: dict[str, Row] = field(default_factory=dict)
    reads: dict[str, list[Read]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    lines_told: list[Line] = field(default_factory=list)
    lines_kept: list[Line] = field(default_factory=list)
    costs_reported: Decimal | None = None
    artifacts: list[StoredArtifact] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    open_tool_calls: list[str] = field(default_factory=list)
    dead_letters: dict[str, list[str]] = field(default_factory=dict)
    webhooks: dict[str, set[str]] | None = None
    not_drained: list[str] = field(default_factory=list)

    def known(self) -> dict[str, Asked | None]:
        """Return every accepted response with the request that asked for it, if that is ours.

        Accepted is what a client was told the id of, and what is on `responses.commands`.
        """
        by_mark = {asked.mark: asked for asked in self.asked}
        found: dict[str, Asked | None] = {
            command.response_id: by_mark.get(command.mark or "") for command in self.commands
        }
        found.update({one.response_id: one for one in self.asked if one.response_id is not None})
        return found

    def outcome(self, response_id: str) -> Fact | None:
        """Return the terminal fact of the highest attempt, the first one told of it."""
        facts = self.facts.get(response_id)
        return max(facts, key=lambda fact: (fact.attempt, -fact.at)) if facts else None

    def calls_by_mark(self) -> dict[str, list[Call]]:
        """Return the upstream's calls by request, each list in the order of time."""
        found: dict[str, list[Call]] = {}
        for call in sorted(self.calls, key=lambda call: call.at):
            found.setdefault(call.mark, []).append(call)
        return found


@dataclass
class Report:
    """What the check found: sentences about what must not be, and figures about what was."""

    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure."""
        self.counts[what] = self.counts.get(what, 0) + number

    def violate(self, rule: str, response_id: str, sentence: str) -> None:
        """Note a violation."""
        self.violations.append(f"{rule}: {response_id}: {sentence}")


def turn_of(body: Json) -> tuple[str | None, int, tuple[str, ...]]:
    """Return the mark in the last words of the user, and the tools' outputs that came since."""
    items = body.get("input") if "input" in body else body.get("messages")
    if isinstance(items, str):
        return _mark(items), 0, ()
    mark: str | None = None
    outputs: list[str] = []
    for item in items if isinstance(items, list) else ():
        if item.get("role") == "user":
            mark, outputs = _mark(_text(item.get("content"))), []
        elif item.get("type") == "function_call_output":
            outputs.append(_text(item.get("output")))
        elif item.get("role") == "tool":
            outputs.append(_text(item.get("content")))
    return mark, len(outputs), tuple(outputs)


def _mark(text: str) -> str | None:
    found = MARK.search(text)
    return found.group() if found else None


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    return "".join(str(part.get("text") or "") for part in parts)
