"""Reading commands back while the broker says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from services.worker.leases.rules import CommandPlace
from services.worker.queue.reader import CommandReader
from tests.unit.kit.records import Message


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


class OneRecord(SilentKafka):
    """A topic of one record."""

    def __init__(self, record: Message) -> None:
        super().__init__(end=record.offset + 1)
        self.record = record

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[Any, Any]:
        return {partitions[0]: [self.record]}


@pytest.mark.parametrize("key", [None, b"resp_2"])
async def test_a_stand_in_for_damage_and_another_command_are_not_sent_for_it(
    key: bytes | None,
) -> None:
    reader = reading_from(OneRecord(Message(b"damaged", offset=7, key=key)))
    assert await reader.records([CommandPlace("resp_1", 0, 7)]) == {}
