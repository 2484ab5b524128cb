"""Claimed commands and what may become of each: an end, another attempt, but never a hang."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from contracts.event import Envelope
from services.kit.batches import Received
from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.store import BlobMissingError
from services.kit.producer import Producer
from services.worker.domain import Job
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.rules import Claim, CommandPlace
from services.worker.outbox import Outbox, OutStream
from services.worker.subscribers import Bounds, CommandIntake
from tests.unit.worker.runs import job


@dataclass
class Keeper(LeaseKeeper):
    """Gives every command to this worker; remembers how each ended."""

    attempt: int = 1
    handovers: int = 0
    ends: list[tuple[str, str, int]] = field(default_factory=list)

    async def claim(self, commands: Any) -> dict[str, Claim]:
        places: list[CommandPlace] = list(commands)
        claim = Claim(self.attempt, cancelled=False, handovers=self.handovers)
        return {place.response_id: claim for place in places}

    def finish(self, response_id: str, attempt: int) -> None:
        self.ends.append(("finished", response_id, attempt))

    def drop(self, response_id: str, attempt: int) -> None:
        self.ends.append(("dropped", response_id, attempt))


@dataclass
class Runner:
    """Fails as it is told to; a job may wait for `go_on`."""

    error: BaseException | None = None
    give_up_error: BaseException | None = None
    waits: bool = False
    ran: list[Job] = field(default_factory=list)
    given_up: list[Job] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, job: Job, out: OutStream) -> None:
        self.ran.append(job)
        if self.error is not None:
            raise self.error
        if self.waits:
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled.append(job.response_id)
                raise

    async def give_up(self, job: Job, out: OutStream) -> None:
        self.given_up.append(job)
        if self.give_up_error is not None:
            raise self.give_up_error


class Worker:
    """The edge of the worker with everything around it in memory."""

    def __init__(self, runner: Runner, *, attempt: int = 1, most: int = 100) -> None:
        self.runner = runner
        self.keeper = Keeper(attempt=attempt)
        blobs = DiskBlobs(Path("/nowhere"))
        outbox = Outbox(
            Producer("nowhere:0", client_id="test"),
            blobs,
            tick_seconds=0,
            bound_bytes=1 << 20,
            on_fatal=lambda _: None,
        )
        self._outbox = outbox
        bounds = Bounds(most, drain_seconds=0.01, attempts=3)
        self.commands = CommandIntake(runner, self.keeper, outbox, blobs, bounds=bounds)

    async def take(self, *ids: str) -> None:
        batch = [received(response_id) for response_id in ids]
        await self.commands.on_run_response(batch)

    async def idle(self) -> None:
        async with asyncio.timeout(5):
            while self.commands._tasks:  # noqa: ASYNC110 - tasks set no event
                await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.commands.stop()
        await self._outbox.stop()


def received(response_id: str) -> Received:
    command = job().command.model_copy(update={"response_id": response_id})
    envelope = Envelope.of(
        command,
        event_id=response_id,
        source="/test",
        subject=response_id,
        time=datetime(2026, 11, 22, tzinfo=UTC),
    )
    return Received(envelope, "responses.commands", 0, 0)


async def ends(
    runner: Runner, *, attempt: int = 1, handovers: int = 0
) -> list[tuple[str, str, int]]:
    worker = Worker(runner, attempt=attempt)
    worker.keeper.handovers = handovers
    await worker.take("resp_1")
    await worker.idle()
    await worker.stop()
    return worker.keeper.ends


async def test_a_response_that_ended_is_never_run_again() -> None:
    assert await ends(Runner()) == [("finished", "resp_1", 1)]


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError(),
        OSError(),
        TimeoutError(),
        PoolTimeoutError(),
        BlobMissingError("claims/x"),
    ],
)
async def test_an_outage_leaves_the_response_to_a_later_attempt(error: BaseException) -> None:
    runner = Runner(error)
    assert await ends(runner) == [("dropped", "resp_1", 1)]
    assert runner.given_up == []


async def test_a_bug_fails_the_response_instead_of_letting_it_hang() -> None:
    runner = Runner(KeyError("x"))
    assert await ends(runner) == [("finished", "resp_1", 1)]
    assert [given.response_id for given in runner.given_up] == ["resp_1"]


async def test_a_response_that_can_not_even_be_given_up_is_left_to_a_later_attempt() -> None:
    runner = Runner(KeyError("x"), give_up_error=KeyError("y"))
    assert await ends(runner) == [("dropped", "resp_1", 1)]


async def test_after_so_many_attempts_the_response_is_given_up_without_its_request() -> None:
    runner = Runner()
    assert await ends(runner, attempt=4) == [("finished", "resp_1", 4)]
    assert runner.ran == []
    assert [given.request for given in runner.given_up] == [{}]


async def test_attempts_that_were_handed_over_are_not_counted_among_those() -> None:
    runner = Runner()
    assert await ends(runner, attempt=9, handovers=6) == [("finished", "resp_1", 9)]
    assert [ran.attempt for ran in runner.ran] == [9]
    assert await ends(runner, attempt=9, handovers=5) == [("finished", "resp_1", 9)]
    assert [given.attempt for given in runner.given_up] == [9]


async def test_what_runs_at_a_stop_is_cancelled_without_a_word() -> None:
    runner = Runner(waits=True)
    worker = Worker(runner)
    await worker.take("resp_1", "resp_2")
    await worker.stop()
    assert sorted(runner.cancelled) == ["resp_1", "resp_2"]
    assert worker.keeper.ends == []
    assert runner.given_up == []


async def test_a_response_whose_lease_was_lost_is_stopped() -> None:
    runner = Runner(waits=True)
    worker = Worker(runner)
    await worker.take("resp_1", "resp_2")
    await asyncio.sleep(0)
    worker.keeper.on_lost("resp_1")
    runner.go_on.set()
    await worker.idle()
    await worker.stop()
    assert runner.cancelled == ["resp_1"]
    assert worker.keeper.ends == [("finished", "resp_2", 1)]


async def test_a_later_attempt_in_the_same_worker_stops_the_earlier_one() -> None:
    runner = Runner(waits=True)
    worker = Worker(runner)
    await worker.take("resp_1")
    await asyncio.sleep(0)
    worker.keeper.attempt = 2
    await worker.take("resp_1")
    await asyncio.sleep(0)
    runner.go_on.set()
    await worker.idle()
    await worker.stop()
    assert runner.cancelled == ["resp_1"]
    assert worker.keeper.ends == [("finished", "resp_1", 2)]


async def test_a_full_worker_takes_no_more_until_something_ends() -> None:
    runner = Runner(waits=True)
    worker = Worker(runner, most=2)
    await worker.take("resp_1", "resp_2")
    assert worker.commands.full
    waiting = asyncio.create_task(worker.take("resp_3"))
    await asyncio.sleep(0)
    assert len(runner.ran) < 3
    runner.go_on.set()
    await waiting
    await worker.idle()
    await worker.stop()
    assert len(worker.keeper.ends) == 3


async def test_the_same_command_twice_in_a_batch_is_run_once() -> None:
    runner = Runner()
    worker = Worker(runner)
    await worker.take("resp_1", "resp_1")
    await worker.idle()
    await worker.stop()
    assert len(runner.ran) == 1
