"""What outlives a worker: the log, the lease, the checkpoint, facts and calls that were made."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from contracts.packs import Entry, Flag
from contracts.providers import ProviderConfig
from contracts.responses import ResponseFinishedV1
from contracts.tools import ToolResultV1
from services.worker.chat.turn import TurnEnd
from services.worker.checkpoints.state import State, decode, encode
from services.worker.domain import Event, Item, Job
from services.worker.errors import LeaseLostError
from services.worker.runs.attempts import Attempts
from services.worker.runs.recovery import Delivered
from services.worker.runs.tries import Limits
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
    config,
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
_RESULTS_BEFORE = [0, 1, 3, 4]


class Crash(BaseException):
    """The process dies."""


@dataclass
class World:
    """Worker processes die in it after so many steps, or stand still at one of an attempt's
    pauses, (attempt, pause), until `go_on` is set.
    """

    crashes: list[int] = field(default_factory=list)
    stands_still: tuple[int, int] | None = None
    log: list[tuple[Entry, bytes]] = field(default_factory=list)
    lease: int = 0
    checkpoint: bytes | None = None
    checkpoint_of: int = 0
    asked_again: list[int] = field(default_factory=list)
    asked_without_lease: list[tuple[int, int]] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)
    facts: StatedFacts = field(default_factory=StatedFacts)
    new_id: Callable[[str], str] = field(default_factory=ids)
    still: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    steps: int = 0
    pauses: Counter[int] = field(default_factory=Counter)

    def step(self) -> None:
        """Die here if it is time to."""
        self.steps += 1
        if self.crashes and self.steps == self.crashes[0]:
            self.crashes.pop(0)
            self.steps = 0
            raise Crash

    async def pause(self, attempt: int) -> None:
        """Die here, or stand still."""
        self.step()
        self.pauses[attempt] += 1
        if (attempt, self.pauses[attempt]) == self.stands_still:
            self.still.set()
            await self.go_on.wait()

    @property
    def state(self) -> State | None:
        """The checkpoint."""
        return None if self.checkpoint is None else decode(self.checkpoint)

    def worker(self, attempt: int) -> ResponseRunner:
        """Return a worker that claimed the response for this attempt."""
        self.lease = attempt
        edge = _Edge(self, attempt)
        attempts = Attempts(
            upstreams=lambda _: [_Upstream(edge)],
            tools=edge,
            clock=FixedClock(),
            new_id=self.new_id,
            limits=Limits(max_turns=8, max_event_bytes=1 << 20),
        )
        runner = ResponseRunner(
            attempts=attempts, facts=edge, clock=FixedClock(), read_back=edge.read_back
        )
        runner.keep_with(edge, edge)
        return runner

    async def attempt(self, number: int, **way: Any) -> None:
        """Claim and run."""
        worker = self.worker(number)
        await worker.run(job(attempt=number, tools=[MCP_TOOL], **way), _Out(self, number))

    def seen_by_client(self) -> bytes:
        """The bytes that a reader passes on: none of an attempt after a later one's."""
        told, place = b"", (0, -1)
        for entry, payload in self.log:
            if (entry.attempt, entry.index) > place:
                place = (entry.attempt, entry.index)
                told += payload
                if entry.flags & Flag.LAST:
                    break
        return told


class _Out(Written):
    def __init__(self, world: World, attempt: int) -> None:
        super().__init__()
        self._world, self._of = world, attempt

    def write(self, payload: bytes, *, flags: int = Flag.NONE, status: int = 200) -> None:
        self._world.step()
        entry = Entry(b"resp_ours", self._of, len(self.parts), payload, int(flags), status)
        self._world.log.append((entry, payload))
        super().write(payload, flags=flags, status=status)

    async def fence(self) -> None:
        self.write(b": taken over\n\n")
        await self.sent()

    async def sent(self) -> None:
        await self._world.pause(self._of)


class _Upstream:
    def __init__(self, edge: _Edge) -> None:
        self.config = config("first", "chat")
        self.client = Provider([], self.config)
        self.turns = edge


class _Edge:
    """Everything that one attempt does to the world."""

    def __init__(self, world: World, attempt: int) -> None:
        self._world, self._attempt = world, attempt

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        return LocalTools().plan(job, provider)

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        await self._world.pause(self._attempt)
        # The broker makes a call once, whoever asks for it how often.
        self._world.executed[call.call_id(job.response_id)] = 1
        await self._world.pause(self._attempt)
        return result(call, output=f"{call.tool}({call.arguments})")

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        done = sum(item["type"] == "function_call_output" for item in items)
        number = _RESULTS_BEFORE.index(done)
        if self._world.lease != self._attempt:
            self._world.asked_without_lease.append((self._attempt, number))
        elif number < getattr(self._world.state, "turns", 0):
            self._world.asked_again.append(number)
        for step in ROUNDS[number]:
            await self._world.pause(self._attempt)
            yield dict(step) if isinstance(step, dict) else step

    async def save(self, response_id: str, attempt: int, state: State) -> None:
        await self._world.pause(attempt)
        if attempt != self._world.lease or attempt < self._world.checkpoint_of:
            raise LeaseLostError(response_id)
        self._world.checkpoint, self._world.checkpoint_of = encode(state), attempt
        await self._world.pause(attempt)

    async def take_over(self, response_id: str, attempt: int) -> State | None:
        await self._world.pause(attempt)
        self._world.checkpoint_of = attempt
        return self._world.state

    def sure(self, response_id: str, attempt: int) -> bool:
        return attempt == self._world.lease

    async def confirm(self, response_id: str, attempt: int) -> bool:
        return self.sure(response_id, attempt)

    async def read_back(self, _: Job) -> Delivered:
        await self._world.pause(self._attempt)
        seen, place = Delivered(), (0, -1)
        for entry, payload in self._world.log:
            if (entry.attempt, entry.index) > place:
                place = (entry.attempt, entry.index)
                seen.feed(entry, payload)
        return seen

    async def started(self, job: Job) -> None:
        await self._world.pause(self._attempt)

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        await self._world.pause(self._attempt)
        await self._world.facts.finished(job, fact, response)
