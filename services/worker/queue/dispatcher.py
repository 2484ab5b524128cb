"""Parks background commands, and takes them from the queue as room gets free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from contracts.event import Envelope
from contracts.responses import RunResponseV1
from services.kit.outages import OUTAGES
from services.kit.retry import Backoff, retry
from services.kit.tasks import TaskSet
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.rules import Claim, CommandPlace
from services.worker.queue.rules import Parked, QueueBounds, Taken

logger = logging.getLogger(__name__)
_AT_ONCE = 100
_EXPIRED_AT_ONCE = 500
# Rooms that get free one by one within this time are filled in one go.
_PACE_SECONDS = 0.01
_PATIENT = Backoff(attempts=1_000_000, longest_seconds=2.0)


class Queue(Protocol):
    """Where parked responses are kept; see `QueueStore`."""

    async def park(self, commands: Sequence[Parked]) -> None:
        """Let responses wait."""
        ...

    async def park_expired(self, *, most: int) -> list[str]:
        """Put back what its worker let go."""
        ...

    async def take(self, *, room: int, bounds: QueueBounds) -> list[Taken] | None:
        """Take the next ones; None while another worker does."""
        ...

    async def depth(self) -> int:
        """Count what waits."""
        ...


class Reader(Protocol):
    """Reads commands back; see `CommandReader`."""

    async def read(self, places: Sequence[CommandPlace]) -> dict[str, Envelope]:
        """Return the commands by response id, without those that are gone."""
        ...


class Starter(Protocol):
    """Runs leased responses."""

    def start_queued(self, command: RunResponseV1, claim: Claim) -> asyncio.Task[None]:
        """Start one; the task ends when the response has ended or was dropped."""
        ...


class Letters(Protocol):
    """Writes dead letters; see `CommandLetters`."""

    async def gone(self, place: CommandPlace, *, head: str | None = None) -> None:
        """Say that a command is gone."""
        ...


class Dispatcher:
    """Fills this worker's room for background responses from the queue of all workers."""

    def __init__(
        self,
        queue: Queue,
        reader: Reader,
        keeper: LeaseKeeper,
        *,
        bounds: QueueBounds,
        on_fatal: Callable[[BaseException], None],
        letters: Letters | None = None,
    ) -> None:
        self._letters = letters
        self._queue = queue
        self._reader = reader
        self._keeper = keeper
        keeper.on_noted = self._noted
        self._bounds = bounds
        self._starter: Starter | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._tasks = TaskSet(on_fatal)
        self._waiting = 0
        self._freed = False
        self._took = 0.0

    @property
    def waiting(self) -> int:
        """How many waited at all workers when this one looked last."""
        return self._waiting

    @property
    def running(self) -> int:
        """How many run here."""
        return len(self._running)

    def begin(self, starter: Starter) -> None:
        """Say who runs what is taken; call before `start`."""
        self._starter = starter

    async def start(self) -> None:
        """Begin to take."""
        self._tasks.spawn(self._run(), name="take queued responses")

    async def stop(self) -> None:
        """Take no more; what was taken is its starter's to end."""
        await self._tasks.stop()

    def wake(self) -> None:
        """Look at once: something was parked or cancelled."""
        self._wake.set()

    async def park(self, commands: Sequence[Parked]) -> None:
        """Put commands in the queue; when this returns their offsets may be committed."""
        await self._queue.park(commands)
        self.wake()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = -self._bounds.poll_seconds
        while True:
            try:
                if loop.time() - looked_at >= self._bounds.poll_seconds:
                    looked_at = loop.time()
                    await self._park_expired()
                    self._waiting = await self._queue.depth()
                more = await self._fill()
            except OUTAGES as error:
                logger.warning("queued responses could not be taken, trying again: %r", error)
                more = False
            if not more:
                await self._wait()
            # A database that needs long for it is asked less often.
            await asyncio.sleep(max(_PACE_SECONDS, self._took))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._bounds.poll_seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _park_expired(self) -> None:
        for response_id in await self._queue.park_expired(most=_EXPIRED_AT_ONCE):
            logger.warning("the lease of %s expired, it waits again", response_id)

    async def _fill(self) -> bool:
        """Take what there is room for; say whether it is worth to look again at once."""
        self._wake.clear()
        room = min(self._bounds.running - len(self._running), _AT_ONCE)
        began = time.monotonic()
        taken = await self._queue.take(room=max(room, 0), bounds=self._bounds)
        self._took = min(time.monotonic() - began, self._bounds.poll_seconds)
        if taken is None:
            return True
        if not taken:
            return False
        # From here on the leases are ours to renew, whatever Kafka does meanwhile.
        attempts = {one.place.response_id: one.claim.attempt for one in taken}
        self._keeper.hold(attempts, since=began)
        places = [one.place for one in taken]
        commands = await retry(lambda: self._reader.read(places), on=OUTAGES, backoff=_PATIENT)
        for one in taken:
            self._start(one, commands.get(one.place.response_id))
        return True

    def _start(self, taken: Taken, envelope: Envelope | None) -> None:
        assert self._starter is not None
        claim = taken.claim
        if not self._keeper.holds(taken.place.response_id, claim.attempt):
            return
        command = None if envelope is None else envelope.data
        if envelope is None or not isinstance(command, RunResponseV1):
            logger.error("the command of %s is gone from its topic", taken.place.response_id)
            try:
                command = RunResponseV1.model_validate_json(taken.head)
            except ValueError:
                logger.exception("nor can %s be ended without it", taken.place.response_id)
                self._tasks.spawn(self._leave(taken), name=f"leave {taken.place.response_id}")
                return
            claim = replace(claim, lost=True)
        elif envelope.traceparent is not None:
            claim = replace(claim, traceparent=envelope.traceparent)
        task = self._starter.start_queued(command, claim)
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _leave(self, taken: Taken) -> None:
        """Let another worker try, whose version may know how to end it, but not for ever."""
        response_id, attempt = taken.place.response_id, taken.claim.attempt
        if self._letters is None or taken.claim.tries < self._bounds.attempts:
            self._keeper.drop(response_id, attempt)
            return
        try:
            await self._letters.gone(taken.place, head=taken.head)
        except OUTAGES as error:
            logger.warning("no dead letter about %s, trying again: %r", response_id, error)
            self._keeper.drop(response_id, attempt)
        else:
            self._keeper.finish(response_id, attempt)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._freed = True

    def _noted(self) -> None:
        # Not before its end is in the table: until then it counts as one of its key's.
        if self._freed:
            self._freed = False
            self.wake()
