"""Keeps the leases of this worker alive and notes what is finished."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from services.kit.outages import OUTAGES
from services.kit.tasks import TaskSet
from services.worker.leases.rules import AGAIN_SECONDS, Claim, CommandPlace

logger = logging.getLogger(__name__)
_FLUSH_SECONDS = 0.05
_CONFIRM_SECONDS = 120.0


class Store(Protocol):
    """Where leases are kept; see `LeaseStore`."""

    async def claim(self, commands: Sequence[CommandPlace]) -> dict[str, Claim]:
        """Take the responses nobody runs."""
        ...

    async def renew(self, held: Sequence[tuple[str, int]]) -> dict[str, bool]:
        """Extend leases; return those that are still ours, and whether each was cancelled."""
        ...

    async def finish(
        self, held: Sequence[tuple[str, int]], *, checkpointed: Sequence[str] = ()
    ) -> None:
        """Mark responses as done for ever."""
        ...

    async def release(
        self, held: Sequence[tuple[str, int]], *, orderly: bool, again_after_seconds: float
    ) -> list[CommandPlace]:
        """Let go of responses; return where the commands stand that must be sent again."""
        ...


def _nothing() -> None: ...


def _yes() -> bool:
    return True


async def _leave_to_sweepers(_places: Sequence[CommandPlace]) -> None: ...


class LeaseKeeper:
    """The leases this worker holds; `on_lost` gets the id of one that another worker took over.

    `on_cancelled` gets, at each renewal, the ids of those that were cancelled: an order that came
    while a response was about to start reached nobody who could have stopped it. `on_noted` is
    called after ends were written.

    `on_released` gets, at a stop, where the commands stand that others must be sent again.
    `orderly` says whether the stop was asked for, since what it interrupts has not failed then.

    A lease that was not renewed in time, by this process's own clock, may be another worker's
    already: `sure` says so without the database, `confirm` asks it.

    `on_fatal` gets a bug after which no lease would be renewed any more.
    """

    def __init__(
        self, store: Store, *, seconds: float, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._store = store
        self._seconds = seconds
        self.on_lost: Callable[[str], None] = logger.warning
        self.on_cancelled: Callable[[str], None] = logger.debug
        self.on_noted: Callable[[], None] = _nothing
        self.on_released: Callable[[Sequence[CommandPlace]], Awaitable[None]] = _leave_to_sweepers
        self.orderly: Callable[[], bool] = _yes
        self._held: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._checkpointed: set[str] = set()
        self._hurry = asyncio.Event()
        self._round = asyncio.Event()
        self._finished: list[tuple[str, int]] = []
        self._wake = asyncio.Event()
        self._tasks = TaskSet(on_fatal)

    @property
    def held(self) -> int:
        """How many responses this worker runs."""
        return len(self._held)

    async def start(self) -> None:
        """Begin to renew and to note what is finished."""
        self._tasks.spawn(self._renew(), name="renew leases")
        self._tasks.spawn(self._flush(), name="finish leases")

    async def stop(self) -> None:
        """Note what is finished and let go of the rest, for others to take at once."""
        await self._tasks.stop()
        if self._finished:
            await self._note(self._finished)
        if self._held:
            places = await self._store.release(
                list(self._held.items()),
                orderly=self.orderly(),
                again_after_seconds=AGAIN_SECONDS,
            )
            logger.info("%d responses are handed over to other workers", len(self._held))
            await self.on_released(places)

    async def claim(self, commands: Sequence[CommandPlace]) -> dict[str, Claim]:
        """Claim a batch of commands; return the claim to each response this worker shall run."""
        began = time.monotonic()
        claimed = await self._store.claim(commands)
        self.hold({taken: claim.attempt for taken, claim in claimed.items()}, since=began)
        return claimed

    def hold(self, taken: Mapping[str, int], *, since: float) -> None:
        """Renew what was leased to this worker: id to attempt.

        `since` is a monotonic time before the statement that did so: by the database's clock the
        leases end no earlier than that and their seconds.
        """
        self._held.update(taken)
        self._until.update(dict.fromkeys(taken, since + self._seconds))

    def sure(self, response_id: str, attempt: int) -> bool:
        """Whether that lease is still ours for certain; costs nothing."""
        return (
            self._held.get(response_id) == attempt and time.monotonic() < self._until[response_id]
        )

    async def confirm(self, response_id: str, attempt: int) -> bool:
        """Renew now what was not renewed in time; return whether the lease is still ours.

        Outages are sat out for about two minutes; raises `TimeoutError` after that.
        """
        async with asyncio.timeout(_CONFIRM_SECONDS):
            while self.holds(response_id, attempt) and not self.sure(response_id, attempt):
                self._hurry.set()
                await self._round.wait()
        return self.holds(response_id, attempt)

    def checkpointed(self, response_id: str) -> None:
        """Note that there is a checkpoint of a response, which goes with its end."""
        self._checkpointed.add(response_id)

    def holds(self, response_id: str, attempt: int) -> bool:
        """Whether that lease is still ours, as far as is known here."""
        return self._held.get(response_id) == attempt

    def finish(self, response_id: str, attempt: int) -> None:
        """Note that a response is done; it is written in the next batch."""
        if self._held.get(response_id) == attempt:
            self._let_go(response_id)
        self._finished.append((response_id, attempt))
        self._wake.set()

    def drop_all(self) -> None:
        """Forget every response that runs here; their leases expire, as after a crash."""
        self._held.clear()
        self._until.clear()

    def drop(self, response_id: str, attempt: int) -> None:
        """Forget a response without finishing it: its lease expires and another worker takes it."""
        if self._held.get(response_id) == attempt:
            self._let_go(response_id)
            self._checkpointed.discard(response_id)

    def _let_go(self, response_id: str) -> None:
        del self._held[response_id]
        del self._until[response_id]

    async def _renew(self) -> None:
        pause = self._seconds / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            self._hurry.clear()
            held = list(self._held.items())
            pause = self._seconds / 3
            if not held:
                self._end_round()
                continue
            began = time.monotonic()
            try:
                # A connection that hangs leaves time for a try with another.
                async with asyncio.timeout(self._seconds / 2):
                    kept = await self._store.renew(held)
            except OUTAGES as error:
                logger.warning("leases could not be renewed, trying again: %r", error)
                # Nobody may hurry us on: who asks to be sure waits for an answer, not for a try.
                await asyncio.sleep(self._seconds / 30)
                pause = 0.0
                continue
            self._renewed(held, kept, began)

    def _renewed(
        self, held: Sequence[tuple[str, int]], kept: Mapping[str, bool], began: float
    ) -> None:
        until = began + self._seconds
        for response_id, attempt in held:
            if self._held.get(response_id) != attempt:
                continue
            if response_id not in kept:
                self._let_go(response_id)
                self._checkpointed.discard(response_id)
                self.on_lost(response_id)
                continue
            self._until[response_id] = until
            if kept[response_id]:
                self.on_cancelled(response_id)
        self._end_round()

    def _end_round(self) -> None:
        over, self._round = self._round, asyncio.Event()
        over.set()

    async def _note(self, finished: Sequence[tuple[str, int]]) -> None:
        mine = [one for one, _ in finished if one in self._checkpointed]
        await self._store.finish(finished, checkpointed=mine)
        # The end of an attempt that was overtaken here leaves the checkpoint to the later one.
        later = self._held.keys() | {one for one, _ in self._finished}
        self._checkpointed.difference_update(set(mine) - later)

    async def _flush(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_FLUSH_SECONDS)
            self._wake.clear()
            finished, self._finished = self._finished, []
            try:
                await self._note(finished)
                self.on_noted()
            except OUTAGES as error:
                logger.warning("finished leases could not be noted, trying again: %r", error)
                self._finished = finished + self._finished
                self._wake.set()
                await asyncio.sleep(self._seconds / 10)
            except asyncio.CancelledError:
                # Whether they were noted is not known: `stop` does it again.
                self._finished = finished + self._finished
                raise
