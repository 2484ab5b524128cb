"""Offsets are committed in the order of fetching, however the batches end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from services.kit.deadletters import Record
from services.kit.offsets import Batch, Offsets
from tests.unit.kit.records import Message

PLACE = TopicPartition("topic", 0)


class Consumer:
    """Remembers what was committed; `refusals` are raised first, in order."""

    def __init__(self, *refusals: Exception) -> None:
        self.committed: list[int] = []
        self._refusals = list(refusals)

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self._refusals:
            raise self._refusals.pop(0)
        self.committed.append(offsets[PLACE])


def batch_of(offsets: Offsets, first: int, size: int = 2) -> Batch:
    records = [Message(b"", topic="topic", offset=first + at) for at in range(size)]
    return offsets.begin(cast("Sequence[Record]", records))


@given(st.permutations(range(6)))
async def test_nothing_is_committed_before_all_that_was_fetched_earlier(order: list[int]) -> None:
    consumer = Consumer()
    offsets = Offsets(lambda: consumer)
    batches = [batch_of(offsets, 2 * number) for number in range(6)]
    handled: set[int] = set()
    for number in order:
        offsets.done(batches[number])
        handled.add(number)
        await offsets.flush()
        contiguous = next(n for n in range(7) if n not in handled)
        assert (consumer.committed[-1] if consumer.committed else 0) == 2 * contiguous
    assert all(before < after for before, after in pairwise(consumer.committed))


async def test_a_commit_that_failed_is_repeated_with_the_next() -> None:
    consumer = Consumer(KafkaConnectionError())
    offsets = Offsets(lambda: consumer)
    offsets.done(batch_of(offsets, 0))

    await offsets.flush()
    await offsets.flush()

    assert consumer.committed == [2]


async def test_a_commit_after_a_rebalance_is_left_to_the_new_owner() -> None:
    consumer = Consumer(CommitFailedError())
    offsets = Offsets(lambda: consumer)
    offsets.done(batch_of(offsets, 0))

    await offsets.flush()
    await offsets.flush()

    assert consumer.committed == []
