"""Reading commands back while the broker says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from services.worker.leases.store import CommandPlace
from services.worker.queue.reader import CommandReader


class SilentKafka:
    """A consumer that gets nothing, of a topic that ends somewhere."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.polls = 0

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    def pause(self, partition: TopicPartition) -> None: ...

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[Any, Any]:
        self.polls += 1
        return {}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)


def reading_from(kafka: SilentKafka) -> CommandReader:
    reader = CommandReader("nowhere:0", client_id="test")
    reader._kafka = kafka
    return reader


async def test_a_command_that_does_not_come_is_not_taken_for_gone() -> None:
    with pytest.raises(KafkaError):
        await reading_from(SilentKafka(end=8)).read([CommandPlace("r1", 0, 7)])


async def test_a_command_behind_the_end_of_its_topic_is_gone() -> None:
    assert await reading_from(SilentKafka(end=7)).read([CommandPlace("r1", 0, 7)]) == {}
