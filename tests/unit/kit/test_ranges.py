"""Reading a range while the broker answers everything but what is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from services.kit import tail

END = 7


class SlowKafka:
    """A consumer of a topic with records, none of which come; `answers` are empty fetches."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.polls = 0
        self.stopped = False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def position(self, partition: TopicPartition) -> int:
        return END - 1

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        return self.polls if self.answers else None

    async def getmany(self, *, timeout_ms: int) -> dict[Any, Any]:
        self.polls += 1
        return {}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, END)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[Any, Any]:
        return {place: SimpleNamespace(offset=0) for place in times}


async def read(kafka: SlowKafka, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(tail, "_consumer", lambda _bootstrap, _reset: kafka)
    ranges = tail.read_range("nowhere:0", topic="t", partition=0, since_ms=0)
    return [records async for records in ranges]


async def test_records_that_do_not_come_are_not_taken_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = SlowKafka(answers=False)
    with pytest.raises(KafkaTimeoutError):
        await read(kafka, monkeypatch)
    assert kafka.stopped


async def test_a_broker_that_says_there_is_nothing_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = SlowKafka(answers=True)
    assert await read(kafka, monkeypatch) == []
    assert kafka.stopped
