"""Background commands: parked at once, taken as room gets free, never dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from contracts.event import Envelope
from contracts.responses import RunResponseV1
from services.kit.batches import Received
from services.kit.retry import Backoff
from services.worker.leases.rules import Claim, CommandPlace
from services.worker.queue.dispatcher import Dispatcher
from services.worker.queue.rules import (
    NORMAL,
    PATIENT,
    URGENT,
    Parked,
    QueueBounds,
    Taken,
    priority_of,
)
from tests.unit.worker.runs import job
from tests.unit.worker.test_commands import Keeper, Runner, Worker, received

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def command(response_id: str, **fields: Any) -> RunResponseV1:
    return job(background=True).command.model_copy(update={"response_id": response_id, **fields})


def envelope(of: RunResponseV1, traceparent: str | None = None) -> Envelope:
    made = Envelope.of(
        of, event_id=of.response_id, source="/test", subject=of.response_id, time=NOW
    )
    return made.model_copy(update={"traceparent": traceparent})


@pytest.mark.parametrize(
    ("tier", "priority"),
    [
        (None, NORMAL),
        ("auto", NORMAL),
        ("default", NORMAL),
        ("scale", NORMAL),
        ("priority", URGENT),
        ("fast", URGENT),
        ("flex", PATIENT),
    ],
)
def test_the_tier_decides_how_urgent_a_response_is(tier: str | None, priority: int) -> None:
    assert priority_of(command("r1", service_tier=tier)) == priority
    assert priority_of(command("r1", request={"service_tier": tier})) == priority


def test_the_head_of_a_command_is_a_command_without_what_is_large() -> None:
    of = command("r1", request={"input": "x" * 10_000}, history=[{"a": "b"}])
    parked = Parked.of(of, CommandPlace("r1", 1, 2))
    assert len(parked.head) < 1_000
    head = RunResponseV1.model_validate_json(parked.head)
    assert (head.principal, head.accepted_at) == (of.principal, of.accepted_at)
    assert (head.request, head.history) == (None, [])


class Queue:
    """A queue in memory, without fairness."""

    def __init__(self, *ids: str) -> None:
        self.waiting = list(ids)
        self.rooms: list[int] = []
        self.failures: list[Exception] = []
        self.busy = 0

    async def park(self, commands: Sequence[Parked]) -> None:
        self.waiting += [one.place.response_id for one in commands]

    async def park_expired(self, *, most: int) -> list[str]:
        return []

    async def take(self, *, room: int, bounds: QueueBounds) -> list[Taken] | None:
        if self.failures:
            raise self.failures.pop()
        if self.busy:
            self.busy -= 1
            return None
        self.rooms.append(room)
        taken, self.waiting = self.waiting[:room], self.waiting[room:]
        head = command("head").model_dump_json(exclude_none=True)
        return [
            Taken(
                CommandPlace(one, 0, 0),
                Claim(1, cancelled=False),
                head.replace('"head"', f'"{one}"'),
            )
            for one in taken
        ]

    async def depth(self) -> int:
        return len(self.waiting)


class Reader:
    """Reads every command but those that are gone."""

    def __init__(self, *gone: str) -> None:
        self.gone = gone
        self.failures: list[Exception] = []
        self.traceparent: str | None = None

    async def read(self, places: Sequence[CommandPlace]) -> dict[str, Envelope]:
        if self.failures:
            raise self.failures.pop()
        ids = [place.response_id for place in places if place.response_id not in self.gone]
        return {one: envelope(command(one), self.traceparent) for one in ids}


class Starter:
    """Runs each response until it is let go."""

    def __init__(self) -> None:
        self.started: dict[str, Claim] = {}
        self.let_go: dict[str, asyncio.Event] = {}

    def start_queued(self, of: RunResponseV1, claim: Claim) -> asyncio.Task[None]:
        self.started[of.response_id] = claim
        go = self.let_go[of.response_id] = asyncio.Event()

        async def run() -> None:
            await go.wait()

        return asyncio.create_task(run())

    async def has_started(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.started) < count:  # noqa: ASYNC110 - a dict sets no event
                await asyncio.sleep(0.001)


class Held(Keeper):
    """Knows what it was told to hold, but for what was lost meanwhile."""

    lost = ""

    def hold(self, taken: Any, *, since: float) -> None:
        self.held_ids = {one for one in taken if one != self.lost}

    def holds(self, response_id: str, attempt: int) -> bool:
        return response_id in self.held_ids


@asynccontextmanager
async def dispatching(
    queue: Queue, reader: Reader | None = None, *, room: int = 2, lost: str = ""
) -> AsyncIterator[tuple[Dispatcher, Starter]]:
    keeper, starter, fatal = Held(), Starter(), list[BaseException]()
    keeper.lost = lost
    bounds = QueueBounds(running=room, per_key=10, overdue_seconds=60, poll_seconds=0.02)
    made = Dispatcher(queue, reader or Reader(), keeper, bounds=bounds, on_fatal=fatal.append)
    made.begin(starter)
    await made.start()
    yield made, starter
    await made.stop()
    for go in starter.let_go.values():
        go.set()
    assert fatal == []


async def test_room_is_filled_and_filled_again_as_responses_end() -> None:
    queue = Queue("r1", "r2", "r3")
    async with dispatching(queue) as (dispatcher, starter):
        await starter.has_started(2)
        assert dispatcher.running == 2
        assert queue.waiting == ["r3"]
        starter.let_go["r1"].set()
        await starter.has_started(3)
    assert max(queue.rooms) == 2


async def test_what_is_parked_is_looked_at_at_once() -> None:
    queue = Queue()
    async with dispatching(queue) as (dispatcher, starter):
        await dispatcher.park([Parked.of(command("r1"), CommandPlace("r1", 0, 0))])
        await starter.has_started(1)


async def test_another_worker_s_turn_and_outages_are_outlasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)
    queue, reader = Queue("r1"), Reader()
    queue.busy = 3
    queue.failures = [OSError("away")]
    reader.failures = [KafkaConnectionError(), KafkaConnectionError()]
    async with dispatching(queue, reader) as (_, starter):
        await starter.has_started(1)


async def test_a_response_whose_command_is_gone_can_still_be_ended() -> None:
    async with dispatching(Queue("r1"), Reader("r1")) as (_, starter):
        await starter.has_started(1)
    assert starter.started == {"r1": Claim(1, cancelled=False, lost=True)}


class Rows(Queue):
    """Gives these rows, all at once."""

    def __init__(self, *rows: Taken) -> None:
        super().__init__()
        self.rows = list(rows)

    async def take(self, *, room: int, bounds: QueueBounds) -> list[Taken] | None:
        taken, self.rows = self.rows, []
        return taken


class Letters:
    """Remembers dead letters; fails as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.written: list[tuple[str, str | None]] = []

    async def gone(self, place: CommandPlace, *, head: str | None = None) -> None:
        if self.failures:
            raise self.failures.pop()
        self.written.append((place.response_id, head))


async def left(attempt: int, handovers: int, letters: Letters) -> list[tuple[str, str, int]]:
    """What becomes of a response of which not even the head can be read."""
    claim = Claim(attempt, cancelled=False, handovers=handovers)
    queue, keeper = Rows(Taken(CommandPlace("r1", 0, 0), claim, "no command")), Held()
    bounds = QueueBounds(running=1, per_key=10, overdue_seconds=60, poll_seconds=0.02, attempts=3)
    made = Dispatcher(
        queue, Reader("r1"), keeper, bounds=bounds, on_fatal=lambda _: None, letters=letters
    )
    made.begin(Starter())
    await made.start()
    async with asyncio.timeout(5):
        while not keeper.ends:  # noqa: ASYNC110 - a list sets no event
            await asyncio.sleep(0.001)
    await made.stop()
    return keeper.ends


async def test_a_response_that_can_not_even_be_ended_is_left_to_others_and_then_a_dead_letter() -> (
    None
):
    letters = Letters()
    assert await left(2, 0, letters) == [("dropped", "r1", 2)]
    assert await left(5, 3, letters) == [("dropped", "r1", 5)]
    assert letters.written == []
    assert await left(3, 0, Letters(OSError("away"))) == [("dropped", "r1", 3)]
    assert await left(5, 2, letters) == [("finished", "r1", 5)]
    assert letters.written == [("r1", "no command")]


async def test_a_lease_that_was_lost_before_its_command_was_read_is_left_alone() -> None:
    async with dispatching(Queue("r1", "r2"), lost="r1") as (_, starter):
        await starter.has_started(1)
    assert list(starter.started) == ["r2"]


async def test_the_trace_of_a_command_goes_on_after_the_queue() -> None:
    reader = Reader()
    reader.traceparent = PARENT
    async with dispatching(Queue("r1"), reader) as (_, starter):
        await starter.has_started(1)
    assert starter.started["r1"].traceparent == PARENT


async def test_background_commands_are_parked_and_the_others_run() -> None:
    worker = Worker(runner := Runner())
    parked: list[str] = []

    async def park(commands: Sequence[Parked]) -> None:
        parked.extend(one.place.response_id for one in commands)

    worker.commands._park = park
    behind = Received(envelope(command("back")), "responses.commands", 4, 2)
    batch = [received("front"), behind]
    await worker.commands.on_run_response(batch)
    await worker.idle()
    await worker.stop()
    assert parked == ["back"]
    assert [ran.response_id for ran in runner.ran] == ["front"]


async def test_queued_responses_take_no_room_of_the_foreground() -> None:
    worker = Worker(runner := Runner(waits=True), most=1)
    worker.commands.start_queued(command("back"), Claim(1, cancelled=False))
    states = [worker.commands.full]
    await worker.take("front")
    states.append(worker.commands.full)
    assert states == [False, True]
    assert worker.commands.open_responses == 2
    runner.go_on.set()
    await worker.idle()
    await worker.stop()
    assert len(worker.keeper.ends) == 2


async def test_a_lost_command_is_given_up_at_once() -> None:
    worker = Worker(runner := Runner())
    await worker.commands.start_queued(command("r1"), Claim(1, cancelled=False, lost=True))
    await worker.stop()
    assert [one.response_id for one in runner.given_up] == ["r1"]
    assert worker.keeper.ends == [("finished", "r1", 1)]
