"""Finds leases that others let expire, and sends their commands again, as copies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from contracts.topics import RESPONSES_COMMANDS
from services.kit.codec import decode
from services.kit.deadletters import Record
from services.kit.outages import OUTAGES
from services.kit.producer import Producer
from services.kit.tasks import TaskSet
from services.worker.leases.letters import CommandLetters
from services.worker.leases.rules import AGAIN_SECONDS, CommandPlace, Expired

logger = logging.getLogger(__name__)
_AT_ONCE = 200
_FORGET_EVERY_SWEEPS = 300
_FORGET_MOST = 20_000
KEEP_FINISHED_DAYS = 8
"""Longer than `responses.commands` keeps its messages: a command that comes again stays known."""
MOST_SENDS = 20
"""A command that no worker can read is sent again so often, about eighty minutes in all."""


class Store(Protocol):
    """Where leases are kept; see `LeaseStore`."""

    async def abandon_expired(self, *, most: int, again_after_seconds: float) -> list[Expired]:
        """Open expired leases for the next claim."""
        ...

    async def resent(self, ids: Sequence[str], *, again_after_seconds: float) -> None:
        """Note that commands were sent again."""
        ...

    async def end(self, ids: Sequence[str]) -> None:
        """Close abandoned leases for ever."""
        ...

    async def forget(self, *, days: int, most: int) -> int:
        """Delete old leases; return how many."""
        ...


class Commands(Protocol):
    """Sends commands again; see `Republisher`."""

    async def send_again(self, expired: Sequence[Expired]) -> list[str]:
        """Send what can be sent; return the ids of responses that nobody can ever run."""
        ...


class Reader(Protocol):
    """Reads commands back; see `CommandReader`."""

    async def records(self, places: Sequence[CommandPlace]) -> dict[str, Record]:
        """Return what stands at these places by response id."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...


class Sweeper:
    """Finds expired leases and sends their commands again; every worker may run one."""

    def __init__(
        self,
        store: Store,
        commands: Commands,
        *,
        every_seconds: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._commands = commands
        self._every_seconds = every_seconds
        self._tasks = TaskSet(on_fatal)

    async def start(self) -> None:
        """Begin to sweep."""
        self._tasks.spawn(self._run(), name="sweep leases")

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._tasks.stop()

    async def _run(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self._sweep()
                sweeps += 1
                if sweeps % _FORGET_EVERY_SWEEPS == 0:
                    await self._store.forget(days=KEEP_FINISHED_DAYS, most=_FORGET_MOST)
            except OUTAGES as error:
                logger.warning("a sweep failed, the next one repeats it: %r", error)

    async def _sweep(self) -> None:
        expired = await self._store.abandon_expired(
            most=_AT_ONCE, again_after_seconds=AGAIN_SECONDS
        )
        if not expired:
            return
        ids = [one.place.response_id for one in expired]
        logger.warning("%d leases expired, sending again: %s", len(ids), ", ".join(ids[:10]))
        hopeless = await self._commands.send_again(expired)
        # Not before it is sent: an outage must not make the next try later.
        await self._store.resent(ids, again_after_seconds=AGAIN_SECONDS)
        if hopeless:
            await self._store.end(hopeless)


class Republisher:
    """Copies commands; connects only while it does so, since sweeps rarely find any.

    A command that is gone from its topic, and one that no worker could read for long, are dead
    letters. `reader` opens a connection of its own.
    """

    def __init__(
        self, producer: Producer, letters: CommandLetters, *, reader: Callable[[], Reader]
    ) -> None:
        self._producer = producer
        self._letters = letters
        self._reader = reader

    async def send_again(self, expired: Sequence[Expired]) -> list[str]:
        """Copy commands with their keys and bytes; return the ids of those that nobody can run.

        Raises `KafkaError` when it can't; then any of them may have been sent.
        """
        records = await self._read([one.place for one in expired])
        hopeless: list[str] = []
        sends: list[Record] = []
        for one in expired:
            record = records.get(one.place.response_id)
            if record is None:
                await self._letters.gone(one.place)
            elif one.resent < MOST_SENDS or _readable(record):
                sends.append(record)
                continue
            else:
                await self._letters.unread(record, sends=one.resent)
            hopeless.append(one.place.response_id)
        await asyncio.gather(*(self._send(record) for record in sends))
        return hopeless

    async def hand_over(self, places: Sequence[CommandPlace]) -> None:
        """Copy the commands of responses that another worker shall take at once.

        What can't be copied now is left to a sweeper. Raises `KafkaError`.
        """
        for begin in range(0, len(places), _AT_ONCE):
            records = await self._read(places[begin : begin + _AT_ONCE])
            await asyncio.gather(*(self._send(record) for record in records.values()))

    async def _read(self, places: Sequence[CommandPlace]) -> dict[str, Record]:
        reader = self._reader()
        try:
            return await reader.records(places)
        finally:
            await reader.stop()

    async def _send(self, record: Record) -> None:
        await self._producer.send(
            RESPONSES_COMMANDS.name, record.value, key=record.key, headers=record.headers
        )


def _readable(record: Record) -> bool:
    try:
        decode(record.value or b"")
    except ValueError:
        return False
    return True
