"""The worker's Kafka edge: claims batches of commands and gives each claimed one to a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from contracts.responses import RunResponseV1
from services.kit.batches import Received
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.claimcheck import ClaimCheckError, check_out
from services.kit.deadletters import Record, RefusalError
from services.kit.ids import created_ms
from services.kit.outages import OUTAGES
from services.kit.tasks import TaskSet
from services.worker.domain import Job
from services.worker.errors import LeaseLostError
from services.worker.files.fetch import load_files
from services.worker.files.room import DEFAULT_BYTES, FileRoom
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.letters import CommandLetters
from services.worker.leases.rules import Claim, CommandPlace
from services.worker.leases.store import LeaseStore
from services.worker.outbox import Outbox, OutStream
from services.worker.queue.rules import Parked

logger = logging.getLogger(__name__)

_INTERRUPTIONS = (*OUTAGES, BlobMissingError, ClaimCheckError, LeaseLostError)
_FLUSH_SECONDS = 3.0
_EXPECT_SECONDS = 5.0
_Running = dict[str, asyncio.Task[None]]
Park = Callable[[Sequence[Parked]], Awaitable[None]]


class Runner(Protocol):
    """Takes claimed jobs to their end."""

    async def run(self, job: Job, out: OutStream) -> None:
        """Answer the job."""
        ...

    async def give_up(self, job: Job, out: OutStream) -> None:
        """End a job that can't be answered as failed."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """`most` responses run at once, each in up to `attempts`; at a stop they have `drain_seconds`
    to end. Their files have `file_bytes` in memory, as base64.
    """

    most: int
    drain_seconds: float
    attempts: int
    file_bytes: int = DEFAULT_BYTES


class CommandIntake:
    """Takes on as many responses as the worker has room for; the rest waits on the topic."""

    def __init__(
        self,
        runner: Runner,
        keeper: LeaseKeeper,
        outbox: Outbox,
        blobs: BlobStore,
        *,
        bounds: Bounds,
        park: Park | None = None,
    ) -> None:
        self._park = park
        self._runner = runner
        self._keeper = keeper
        keeper.on_lost = self.cancel
        self._outbox = outbox
        self._blobs = blobs
        self._bounds = bounds
        self._file_room = FileRoom(bounds.file_bytes)
        self._room = asyncio.Event()
        self._room.set()
        self._tasks = TaskSet()
        self._open: _Running = {}
        # What came from the queue has room of its own, which its dispatcher counts.
        self._queued: _Running = {}

    async def start(self) -> None:
        """Do nothing: work begins with the first batch."""

    async def stop(self) -> None:
        """Let what runs end within the drain time, cancel the rest for others to take.

        They read what was told so far from the log: all of it must be there before they begin.
        """
        await self._tasks.finish(seconds=self._bounds.drain_seconds)
        if not await self._outbox.flushed(seconds=_FLUSH_SECONDS):
            logger.warning("the log does not take what was told, leases are left to expire")
            self._keeper.drop_all()

    async def on_run_response(self, batch: list[Received]) -> None:
        """Claim the batch in one statement and start what was claimed.

        What runs in the background is parked instead, for its turn to come. The offset may be
        committed when this returns: from here on the leases hold the work.
        """
        commands: dict[str, tuple[RunResponseV1, Received]] = {}
        parked: list[Parked] = []
        for received in batch:
            command = received.envelope.data
            assert isinstance(command, RunResponseV1)
            if command.background and self._park is not None:
                place = CommandPlace(command.response_id, received.partition, received.offset)
                parked.append(Parked.of(command, place))
            else:
                commands.setdefault(command.response_id, (command, received))
        if parked and self._park is not None:
            await self._park(parked)
            if not commands:
                return
        await self._room.wait()
        claimed = await self._keeper.claim(
            [
                CommandPlace(response_id, received.partition, received.offset)
                for response_id, (_, received) in commands.items()
            ]
        )
        for response_id, claim in claimed.items():
            self.cancel(response_id)
            command, received = commands[response_id]
            traceparent = received.envelope.traceparent
            if traceparent is not None:
                claim = replace(claim, traceparent=traceparent)  # noqa: PLW2901 - the same claim
            task = self._tasks.spawn(
                self._work(command, claim, self._open), name=f"run {response_id}"
            )
            self._open[response_id] = task
        self._note_room()

    def start_queued(self, command: RunResponseV1, claim: Claim) -> asyncio.Task[None]:
        """Start a response whose turn in the queue has come; the task ends with it."""
        self.cancel(command.response_id)
        work = self._work(command, claim, self._queued)
        task = self._tasks.spawn(work, name=f"run {command.response_id}")
        self._queued[command.response_id] = task
        return task

    @property
    def full(self) -> bool:
        """Whether the worker takes on no more until something ends."""
        return not self._room.is_set()

    @property
    def open_responses(self) -> int:
        """How many responses run here, those from the queue included."""
        return len(self._open) + len(self._queued)

    def cancel(self, response_id: str) -> None:
        """Stop working on a response that another attempt owns now."""
        task = self._open.get(response_id) or self._queued.get(response_id)
        if task is not None:
            logger.warning("the lease of %s was lost, stopping", response_id)
            task.cancel()

    def _note_room(self) -> None:
        if len(self._open) < self._bounds.most:
            self._room.set()
        else:
            self._room.clear()

    async def _work(self, command: RunResponseV1, claim: Claim, among: _Running) -> None:
        response_id, attempt = command.response_id, claim.attempt
        try:
            out = self._outbox.open(
                response_id, attempt=attempt, partition=command.events_partition
            )
            if claim.tries <= self._bounds.attempts and not claim.lost:
                await self._run(command, claim, out)
            else:
                logger.error("%s ended no attempt of %d, giving up", response_id, attempt - 1)
                # Not even its request can be trusted: that may be what stopped the attempts.
                await self._runner.give_up(Job(command, attempt, {}, []), out)
            self._keeper.finish(response_id, attempt)
        except _INTERRUPTIONS as error:
            # The lease expires and the response is taken up again, here or elsewhere.
            logger.warning("%s was interrupted: %r", response_id, error)
            self._keeper.drop(response_id, attempt)
        except Exception:
            logger.exception("%s can't even be given up, another attempt may", response_id)
            self._keeper.drop(response_id, attempt)
        finally:
            # A later attempt may have taken the place of this one.
            if among.get(response_id) is asyncio.current_task():
                del among[response_id]
            self._note_room()

    async def _run(self, command: RunResponseV1, claim: Claim, out: OutStream) -> None:
        if not command.files:
            return await self._run_job(command, claim, out)
        # The lease is renewed meanwhile.
        async with self._file_room.hold(command.files):
            return await self._run_job(command, claim, out)

    async def _run_job(self, command: RunResponseV1, claim: Claim, out: OutStream) -> None:
        job = await self._job(command, claim)
        try:
            await self._runner.run(job, out)
        except _INTERRUPTIONS:
            raise
        except Exception:
            # A bug would come again with the next attempt, and that one may be paid for again.
            logger.exception("a bug stopped %s, it fails", command.response_id)
            await self._runner.give_up(job, out)

    async def _job(self, command: RunResponseV1, claim: Claim) -> Job:
        request, history = command.request or {}, command.history
        if command.payload is not None:
            stored = orjson.loads(await check_out(self._blobs, command.payload))
            request, history = stored["request"], stored["history"]
        files = await load_files(command.files, self._blobs) if command.files else {}
        return Job(
            command,
            claim.attempt,
            request,
            history,
            claim.cancelled,
            files,
            traceparent=claim.traceparent,
            since=claim.since,
        )


class UnknownCommands:
    """Commands of a kind that only newer workers know: one of them may get the next copy.

    They are no dead letters until that was tried for long, see `Republisher`.
    """

    def __init__(self, store: LeaseStore, letters: CommandLetters) -> None:
        self._store = store
        self._letters = letters

    async def on_unknown(self, records: Sequence[Record]) -> None:
        """Note where the commands stand; when this returns their offsets may be committed."""
        places: list[CommandPlace] = []
        for record in records:
            response_id = (record.key or b"").decode(errors="replace")
            if created_ms(response_id) is None:
                error = RefusalError("a command of an unknown type whose key is no id")
                await self._letters.nameless(record, error)
                continue
            logger.warning("a newer worker must run %s", response_id)
            places.append(CommandPlace(response_id, record.partition, record.offset))
        if places:
            await self._store.expect(places, after_seconds=_EXPECT_SECONDS)
