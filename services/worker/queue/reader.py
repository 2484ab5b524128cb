"""Reads commands back from where they stand on `responses.commands`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

from contracts.event import Envelope
from contracts.responses import RunResponseV1
from contracts.topics import RESPONSES_COMMANDS
from services.kit.codec import decode
from services.kit.damage import EnduringConsumer
from services.kit.deadletters import Record
from services.worker.leases.rules import CommandPlace

logger = logging.getLogger(__name__)
# Commands come one by one or in runs: much more than is wanted would be fetched and thrown away.
_FETCH_BYTES = 128 * 1024
_WAIT_MS = 1_000
_IDLE_POLLS = 10
_WORTH_A_SEEK = 200


class CommandReader:
    """One connection for all reads; it fetches only while a read is under way."""

    def __init__(self, bootstrap: str, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._kafka: Any = None

    async def start(self) -> None:
        """Do nothing: the first read connects."""

    async def stop(self) -> None:
        """Disconnect."""
        if self._kafka is not None:
            await self._kafka.stop()
            self._kafka = None

    async def read(self, places: Sequence[CommandPlace]) -> dict[str, Envelope]:
        """Return the commands at these places by response id.

        What is gone, and what is no command of that response, is not in it. Raises `KafkaError`
        when the topic can't be read.
        """
        found: dict[str, Envelope] = {}
        for response_id, record in (await self.records(places)).items():
            _keep(record.value or b"", response_id, found)
        return found

    async def records(self, places: Sequence[CommandPlace]) -> dict[str, Record]:
        """Return what stands at these places by response id, as it is; raises as `read` does.

        What is gone, damaged, or another response's is not in it.
        """
        if self._kafka is None:
            kafka: Any = EnduringConsumer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_partition_fetch_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=50,
            )
            await kafka.start()
            self._kafka = kafka
        by_partition: dict[int, dict[int, str]] = defaultdict(dict)
        for place in places:
            by_partition[place.partition][place.offset] = place.response_id
        found: dict[str, Record] = {}
        for number, wanted in sorted(by_partition.items()):
            try:
                await self._read(TopicPartition(RESPONSES_COMMANDS.name, number), wanted, found)
            except OffsetOutOfRangeError:
                found.update(await self._read_each(number, wanted))
        return found

    async def _read_each(self, number: int, wanted: dict[int, str]) -> dict[str, Record]:
        """Read what is left of a partition whose oldest part is gone, or never was."""
        partition = TopicPartition(RESPONSES_COMMANDS.name, number)
        oldest = (await self._kafka.beginning_offsets([partition]))[partition]
        end = (await self._kafka.end_offsets([partition]))[partition]
        left = {offset: one for offset, one in wanted.items() if oldest <= offset < end}
        found: dict[str, Record] = {}
        if left:
            await self._read(partition, left, found)
        return found

    async def _read(
        self, partition: TopicPartition, wanted: dict[int, str], found: dict[str, Record]
    ) -> None:
        kafka = self._kafka
        # One partition at a time: a fetch brings a batch above its bound only as the first it has.
        kafka.assign([partition])
        open_offsets = sorted(wanted)
        kafka.seek(partition, open_offsets[0])
        idle = 0
        try:
            while open_offsets and idle < _IDLE_POLLS:
                batches = await kafka.getmany(partition, timeout_ms=_WAIT_MS)
                records = batches.get(partition, ())
                idle = 0 if records else idle + 1
                for record in records:
                    response_id = wanted.get(record.offset)
                    # What stands in for a damaged batch has no key.
                    if response_id is not None and record.key == response_id.encode():
                        found[response_id] = record
                    position = record.offset
                if not records:
                    continue
                open_offsets = [offset for offset in open_offsets if offset > position]
                if open_offsets and open_offsets[0] > position + _WORTH_A_SEEK:
                    kafka.seek(partition, open_offsets[0])
            # A broker that is away sends nothing either; it must say itself that nothing is there.
            if open_offsets and (await kafka.end_offsets([partition]))[partition] > open_offsets[0]:
                raise KafkaTimeoutError(f"no commands came from partition {partition.partition}")
        finally:
            kafka.pause(partition)


def _keep(value: bytes, response_id: str, found: dict[str, Envelope]) -> None:
    try:
        envelope = decode(value)
    except ValueError:
        logger.exception("the command of %s can't be read", response_id)
        return
    command = envelope.data
    if isinstance(command, RunResponseV1) and command.response_id == response_id:
        found[response_id] = envelope
