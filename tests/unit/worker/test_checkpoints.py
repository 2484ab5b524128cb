"""A tool loop that crashes anywhere: the next attempt goes on, and pays for nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.packs import Entry, Flag
from contracts.providers import ProviderConfig
from contracts.tools import ToolResultV1
from services.worker.chat.turn import TurnEnd
from services.worker.checkpoints.state import State, decode, encode
from services.worker.domain import Event, Item, Job
from services.worker.runs.attempts import Attempts, Limits
from services.worker.runs.recovery import Delivered
from services.worker.service import ResponseRunner
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan
from tests.unit.worker.runs import (
    MCP_TOOL,
    FixedClock,
    LocalTools,
    Provider,
    StatedFacts,
    Written,
    call_turn,
    check_response,
    check_stream,
    config,
    events_of,
    ids,
    job,
    result,
    text_turn,
)

ROUNDS: list[list[Any]] = [
    call_turn(("echo", '{"n": 1}')),
    call_turn(("add", '{"n": 2}'), ("echo", '{"n": 3}')),
    call_turn(("echo", '{"n": 4}')),
    text_turn("that is all"),
]
OUTPUTS = [0, 1, 3, 4]
WAYS: list[dict[str, Any]] = [
    {"stream": False},
    {"stream": True},
    {"stream": False, "background": True},
    {"stream": True, "background": True},
]


class Crash(BaseException):
    """The process dies."""


@dataclass
class World:
    """What outlives a worker, and what happened in it; it dies after so many steps, once each."""

    crashes: list[int] = field(default_factory=list)
    log: list[tuple[Entry, bytes]] = field(default_factory=list)
    checkpoint: bytes | None = None
    turns: Counter[int] = field(default_factory=Counter)
    asked_after_checkpoint: list[int] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)
    facts: StatedFacts = field(default_factory=StatedFacts)
    new_id: Callable[[str], str] = field(default_factory=ids)
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.crashes and self.steps == self.crashes[0]:
            self.crashes.pop(0)
            self.steps = 0
            raise Crash

    async def save(self, _: Job, state: State) -> None:
        self.step()
        self.checkpoint = encode(state)
        self.step()

    async def take_over(self, _: str, __: int) -> State | None:
        self.step()
        return None if self.checkpoint is None else decode(self.checkpoint)

    async def read_back(self, _: Job) -> Delivered:
        self.step()
        seen, place = Delivered(), (0, -1)
        for entry, payload in self.log:
            if (entry.attempt, entry.index) > place:
                place = (entry.attempt, entry.index)
                seen.feed(entry, payload)
        return seen

    async def finished(self, of: Job, fact: Any, response: bytes) -> None:
        self.step()
        await self.facts.finished(of, fact, response)


class Out(Written):
    def __init__(self, world: World, attempt: int) -> None:
        super().__init__()
        self._world, self._of = world, attempt

    def write(self, payload: bytes, *, flags: int = Flag.NONE, status: int = 200) -> None:
        self._world.step()
        entry = Entry(b"resp_ours", self._of, len(self.parts), payload, int(flags), status)
        self._world.log.append((entry, payload))
        super().write(payload, flags=flags, status=status)


class Model:
    """Answers by what it is asked with, and counts that."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        done = sum(item["type"] == "function_call_output" for item in items)
        number = OUTPUTS.index(done)
        state = None if self._world.checkpoint is None else decode(self._world.checkpoint)
        if state is not None and number < getattr(state, "turns", 0):
            self._world.asked_after_checkpoint.append(number)
        self._world.turns[number] += 1
        for step in ROUNDS[number]:
            self._world.step()
            yield dict(step) if isinstance(step, dict) else step


class Broker:
    """Makes a call once, whoever asks for it how often."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._local = LocalTools()

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        return self._local.plan(job, provider)

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        self._world.step()
        self._world.executed[call.call_id(job.response_id)] = 1
        self._world.step()
        return result(call, output=f"{call.tool}({call.arguments})")


class Upstream:
    def __init__(self, world: World) -> None:
        self.config = config("first", "chat")
        self.client = Provider([], self.config)
        self.turns = Model(world)


class _Leases:
    def sure(self, _: str, __: int) -> bool:
        return True

    async def confirm(self, _: str, __: int) -> bool:
        return True


@dataclass
class _Kept:
    world: World

    async def save(self, response_id: str, attempt: int, state: State) -> None:
        await self.world.save(job(), state)

    async def take_over(self, response_id: str, attempt: int) -> State | None:
        return await self.world.take_over(response_id, attempt)


async def live(world: World, **way: Any) -> dict[str, Any]:
    """Run attempts until one is not interrupted; return the stated Response."""
    attempt = 0
    while True:
        attempt += 1
        attempts = Attempts(
            upstreams=lambda _: [Upstream(world)],
            tools=Broker(world),
            clock=FixedClock(),
            new_id=world.new_id,
            limits=Limits(max_turns=8, max_event_bytes=1 << 20),
        )
        facts: Any = type(
            "Facts", (), {"finished": world.finished, "started": StatedFacts().started}
        )()
        runner = ResponseRunner(
            attempts=attempts, facts=facts, clock=FixedClock(), read_back=world.read_back
        )
        runner.keep_with(_Leases(), _Kept(world))
        with suppress(Crash):
            await runner.run(job(attempt=attempt, tools=[MCP_TOOL], **way), Out(world, attempt))
            return world.facts.outcomes[-1][1]


def seen_by_client(world: World) -> bytes:
    """The bytes that a reader passes on: none of an attempt after a later one's."""
    told, place = b"", (0, -1)
    for entry, payload in world.log:
        if (entry.attempt, entry.index) > place:
            place = (entry.attempt, entry.index)
            told += payload
            if entry.flags & Flag.LAST:
                break
    return told


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [{**item, "id": ""} for item in response["output"]]
    return {**response, "output": output}


def check(
    world: World, response: dict[str, Any], whole: dict[str, Any], way: dict[str, Any]
) -> None:
    check_response(response)
    assert world.asked_after_checkpoint == []
    assert all(times == 1 for times in world.executed.values())
    if way["stream"]:
        events = events_of(seen_by_client(world))
        check_stream(events)
        assert events[-1]["response"] == response
        for event in events:
            if "output_index" in event:
                told = event["item"]["id"] if "item" in event else event["item_id"]
                assert told == response["output"][event["output_index"]]["id"]
        assert sum(e["type"] == f"response.{response['status']}" for e in events) == 1
    if response["status"] == "completed":
        assert without_ids(response) == without_ids(whole)
        assert not world.facts.outcomes[-1][0].estimated_usage
        if way["stream"]:
            done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
            assert done == response["output"]
    else:
        # Only a reader who was told of a turn that did not end is left with less.
        assert (way["stream"], response["status"]) == (True, "failed")
        assert world.facts.outcomes[-1][0].estimated_usage
        kept = decode(world.checkpoint) if world.checkpoint else None
        paid = (getattr(kept, "usage", None) or {"output_tokens": 0})["output_tokens"]
        assert response["usage"]["output_tokens"] > paid


async def undisturbed(way: dict[str, Any]) -> tuple[dict[str, Any], int]:
    world = World()
    response = await live(world, **way)
    return response, world.steps


@pytest.mark.parametrize("way", WAYS[:2])
async def test_a_crash_at_any_step_of_a_tool_loop_costs_no_turn_and_no_call_that_ended(
    way: dict[str, Any],
) -> None:
    whole, steps = await undisturbed(way)
    assert whole["usage"]["output_tokens"] == 3 * 3 + 5
    ends: Counter[str] = Counter()
    for at in range(1, steps + 1):
        world = World([at])
        response = await live(world, **way)
        check(world, response, whole, way)
        ends[response["status"]] += 1
    assert ends["completed"] > 0
    assert (ends["failed"] > 0) == way["stream"]


@settings(max_examples=40, deadline=None)
@given(way=st.sampled_from(WAYS), crashes=st.lists(st.integers(1, 60), max_size=4))
def test_any_number_of_crashes_ends_the_same_way(way: dict[str, Any], crashes: list[int]) -> None:
    async def run() -> None:
        whole, _ = await undisturbed(way)
        world = World(crashes)
        check(world, await live(world, **way), whole, way)

    asyncio.run(run())
