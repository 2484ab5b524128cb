"""Sends commands again: each is read from where it stands and copied to the end of its topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from contracts.topics import RESPONSES_COMMANDS
from services.kit.codec import decode
from services.kit.deadletters import Record
from services.kit.producer import Producer
from services.worker.leases.letters import CommandLetters
from services.worker.leases.store import CommandPlace, Expired
from services.worker.queue.reader import CommandReader

_AT_ONCE = 200
MOST_SENDS = 20
"""A command that no worker can read is sent again so often, about eighty minutes in all."""


class Republisher:
    """Copies commands; connects only while it does so, since sweeps rarely find any.

    A command that is gone from its topic, and one that no worker could read for long, are dead
    letters. `reader` opens a connection of its own.
    """

    def __init__(
        self, producer: Producer, letters: CommandLetters, *, reader: Callable[[], CommandReader]
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
