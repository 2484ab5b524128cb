"""Kafka consumers that a damaged batch on a broker's disk does not stop for ever."""

# ruff: noqa: SLF001 - aiokafka has no other way into what it fetched

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import ConsumerRecord
from opentelemetry import metrics

logger = logging.getLogger(__name__)
_UNKNOWN_TIME = -1
_CREATE_TIME = 0


class EnduringConsumer(AIOKafkaConsumer):  # type: ignore[misc] # aiokafka ships no types
    """Gives one record in place of a batch whose checksum is wrong, and goes on behind it.

    aiokafka raises instead: each fetch anew, since its position stays, and what it had taken from
    other partitions in the same moment is gone. The record that stands for the batch says which
    offsets are lost. It is no message of ours, so that whoever reads it makes it a dead letter.
    """

    async def start(self) -> None:
        """Connect, as any consumer does."""
        await super().start()
        fetcher = self._fetcher
        fetched = _Fetched()
        for partition, found in fetcher._records.items():
            fetched[partition] = found
        fetcher._records = fetched


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What was fetched, by partition; the records of each are unpacked our way."""

    def __setitem__(self, partition: TopicPartition, found: Any) -> None:
        if isinstance(found, FetchResult):
            unpack_enduringly(found._partition_records)
        super().__setitem__(partition, found)


def unpack_enduringly(records: PartitionRecords | None) -> None:
    """Let records that are not unpacked yet go on behind damage."""
    if records is not None:
        records._records = _Batches(records._records)
        records._records_iterator = _enduring(records)


class _Batches:
    """The batches of a fetch, and the one that was taken last."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.last: Any = None

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        self.last = self._batches.next_batch()
        return self.last


def _enduring(records: Any) -> Iterator[ConsumerRecord]:
    while True:
        try:
            # A new generator goes on with the batch after the one that stopped the last.
            yield from records._unpack_records()
        except CorruptRecordException as error:
            first = records.next_fetch_offset
            # The length of a batch may be damaged, too: then one offset after the other is tried.
            after = _end_of(records._records.last, first)
            records.next_fetch_offset = after
            yield _stand_in(records._tp, first, after, error)
        else:
            return


def _end_of(batch: Any, first: int) -> int:
    """Return the offset behind a damaged batch, the next one if it can't be believed."""
    if batch is None or not batch.base_offset <= first < batch.next_offset:
        return first + 1
    return int(batch.next_offset)


def _stand_in(
    partition: TopicPartition, first: int, after: int, error: Exception
) -> ConsumerRecord:
    words = f"{partition.topic}[{partition.partition}] is damaged from {first} to {after - 1}"
    logger.critical("%s, these messages are lost: %s", words, error)
    metrics.get_meter("antiphon").create_counter(
        "antiphon.damaged_messages", description="Offsets that could not be read from a topic"
    ).add(after - first, {"topic": partition.topic})
    value = f"damaged: {words}".encode()
    return ConsumerRecord(
        partition.topic,
        partition.partition,
        after - 1,
        _UNKNOWN_TIME,
        _CREATE_TIME,
        None,
        value,
        None,
        -1,
        len(value),
        (),
    )
