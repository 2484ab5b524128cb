"""How many dead letters wait: what the group of those who handle them has noted on Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from contracts.topics import TOPICS
from services.kit.outages import OUTAGES
from services.kit.retry import Backoff, retry
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
GROUP = "antiphon-dead-letters"
_NOT_YET = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
_PATIENT = Backoff(attempts=20, longest_seconds=1.0, within_seconds=60.0)
"""A broker that has just started finds groups after some seconds."""
_MOST_NOTE_CHARACTERS = 4_000
"""Kafka keeps 4,096 bytes beside an offset."""


class TooScatteredError(ValueError):
    """Letters were handled out of order in so many places that it can't be noted."""


@dataclass(frozen=True)
class Handled:
    """Which letters of a topic wait no more: all below `before`, and single ones behind it."""

    before: int = 0
    beyond: frozenset[int] = field(default=frozenset())

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and (offset < self.before or offset in self.beyond)

    def with_one(self, offset: int) -> Handled:
        """Return this and one letter more; what follows without a gap is drawn together."""
        before, beyond = self.before, {one for one in (*self.beyond, offset) if one >= self.before}
        while before in beyond:
            beyond.discard(before)
            before += 1
        return Handled(before, frozenset(beyond))

    def waiting(self, first: int, end: int) -> int:
        """Count what waits among the letters from `first` to before `end`."""
        begin = max(first, self.before)
        return max(0, end - begin - sum(begin <= one < end for one in self.beyond))

    @property
    def note(self) -> str:
        """The single ones as text, such as `7,9-12`; raises `TooScatteredError`."""
        text = ",".join(
            str(first) if first == last else f"{first}-{last}"
            for first, last in _runs(sorted(self.beyond))
        )
        if len(text) > _MOST_NOTE_CHARACTERS:
            raise TooScatteredError("too many letters were handled out of order; take them in turn")
        return text

    @classmethod
    def read(cls, offset: int, note: str) -> Handled:
        """Return what was noted; a note that is not ours is none."""
        beyond: set[int] = set()
        for part in filter(None, note.split(",")):
            first, _, last = part.partition("-")
            if not (first.isdigit() and (last or first).isdigit()):
                return cls(max(offset, 0))
            beyond.update(range(int(first), int(last or first) + 1))
        return cls(max(offset, 0), frozenset(beyond))


def _runs(offsets: Sequence[int]) -> Iterable[tuple[int, int]]:
    begin = 0
    for at, offset in enumerate(offsets):
        if at + 1 == len(offsets) or offsets[at + 1] != offset + 1:
            yield offsets[begin], offset
            begin = at + 1


@dataclass(frozen=True)
class Waiting:
    """How many dead letters of a topic wait, and how many were ever written."""

    topic: str
    waiting: int
    written: int


def letters_of(topic: str) -> TopicPartition:
    """Return where the dead letters of a topic stand."""
    return TopicPartition(f"{topic}.dlq", 0)


async def handled(bootstrap: str, topics: Sequence[str]) -> dict[str, Handled]:
    """Return what was handled of each topic's letters; raises `KafkaError`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        places = [letters_of(topic) for topic in topics]
        noted: dict[Any, Any] = await retry(
            lambda: admin.list_consumer_group_offsets(GROUP, partitions=places),
            on=_NOT_YET,
            backoff=_PATIENT,
        )
    finally:
        await admin.close()
    return {
        topic: Handled.read(noted[place].offset, noted[place].metadata or "")
        if place in noted
        else Handled()
        for topic, place in zip(topics, places, strict=True)
    }


async def waiting(bootstrap: str) -> list[Waiting]:
    """Count what waits for every topic of the registry; raises `KafkaError`."""
    topics = [topic.name for topic in TOPICS]
    places = [letters_of(topic) for topic in topics]
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    await consumer.start()
    try:
        firsts = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
    finally:
        await consumer.stop()
    done = await handled(bootstrap, topics)
    return [
        Waiting(topic, done[topic].waiting(firsts[place], ends[place]), ends[place])
        for topic, place in zip(topics, places, strict=True)
    ]


class LetterGauge:
    """Shows in the metrics how many dead letters wait, by topic; looks every so many seconds."""

    def __init__(self, bootstrap: str, *, every_seconds: float) -> None:
        self._bootstrap = bootstrap
        self._every_seconds = every_seconds
        self._counts: list[Waiting] = []
        self._tasks = TaskSet()
        metrics.get_meter("antiphon").create_observable_gauge(
            "antiphon.dead_letters.waiting",
            [self._observe],
            description="Dead letters that nobody has sent again or dropped",
        )

    async def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn(self._run(), name="count dead letters")

    async def stop(self) -> None:
        """Stop looking."""
        await self._tasks.stop()

    async def _run(self) -> None:
        while True:
            try:
                self._counts = await waiting(self._bootstrap)
            except OUTAGES as error:
                logger.warning("dead letters can't be counted now: %r", error)
            await asyncio.sleep(self._every_seconds)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(one.waiting, {"topic": one.topic}) for one in self._counts]
