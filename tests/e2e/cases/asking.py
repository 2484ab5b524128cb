"""Asks many things at once and keeps what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession

from tests.e2e.parts import DIALECTS
from tests.e2e.sse import events as events_of
from tests.upstream import UpstreamProcess

Json = dict[str, Any]
AT_ONCE = 16
NATIVE, CHAT = DIALECTS["responses"], DIALECTS["chat"]


@dataclass(frozen=True)
class Case:
    """One request: `input` and parameters; `stream` decides how its answer comes."""

    name: str
    model: str
    stream: bool
    input: Any
    parameters: Json = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its name among all tests."""
        dialect = "native" if self.model == NATIVE else "chat"
        return f"{self.name}-{dialect}-{'stream' if self.stream else 'json'}"

    @property
    def mark(self) -> str:
        """What its request is found by at the provider."""
        return f"case {self.id}."


@dataclass
class Outcome:
    """The answer, what a later GET gave, and what the provider was asked."""

    status: int
    body: Json
    events: list[Json] = field(default_factory=list)
    stored: Json | None = None
    asked: list[Json] = field(default_factory=list)

    @property
    def response(self) -> Json:
        """The final response."""
        if not self.events:
            return self.body
        response: Json = self.events[-1]["response"]
        return response


def every_way(name: str, text: Any, parameters: Json, models: Sequence[str]) -> list[Case]:
    """The same request to each model, as JSON and as a stream."""
    return [
        Case(name, model, stream, text, parameters) for model in models for stream in (False, True)
    ]


async def ask_all(
    http: ClientSession, upstream: UpstreamProcess, cases: Sequence[Case]
) -> dict[str, Outcome]:
    """Ask all of them, a few at once, and return the outcomes by the cases' ids."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Outcome:
        async with places:
            return await _ask(http, case)

    async with asyncio.TaskGroup() as group:
        tasks = {case.id: group.create_task(one(case)) for case in cases}
    outcomes = {name: task.result() for name, task in tasks.items()}
    marks = {case.mark: case.id for case in cases}
    for request in upstream.requests("case "):
        mark = request["body"].get("safety_identifier")
        if mark in marks:
            outcomes[marks[mark]].asked.append(request["body"])
    return outcomes


async def _ask(http: ClientSession, case: Case) -> Outcome:
    body = {"safety_identifier": case.mark, **case.parameters}
    body |= {"model": case.model, "input": case.input, "stream": case.stream}
    async with http.post("/v1/responses", json=body) as answer:
        if answer.status != 200 or not case.stream:
            outcome = Outcome(answer.status, await answer.json())
        else:
            assert answer.content_type == "text/event-stream"
            outcome = Outcome(answer.status, {}, events_of(await answer.read()))
    if outcome.status == 200:
        async with http.get(f"/v1/responses/{outcome.response['id']}") as answer:
            outcome.stored = await answer.json() if answer.status == 200 else None
    return outcome
