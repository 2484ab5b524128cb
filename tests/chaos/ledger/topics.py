"""Whole topics, read from their first record to their last, and how far their readers are."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from contracts.costs import CostRecordedV1
from contracts.event import Contract
from contracts.responses import ResponseDeletedV1, ResponseFinishedV1, RunResponseV1
from contracts.tools import ToolResultV1
from contracts.topics import (
    COSTS_RECORDED,
    MAX_MESSAGE_BYTES,
    RESPONSES_COMMANDS,
    RESPONSES_LIFECYCLE,
    TOOLS_RESULTS,
    TOPICS,
)
from services.kit.codec import decode
from tests.chaos.ledger.evidence import Command, Evidence, Fact, Line, ToolResult

PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}
_DLQ = ".dlq"
_REASON = "antiphon-dlq-reason"


class WholeTopics:
    """Reads topics without a group; use `opened`."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    @classmethod
    @asynccontextmanager
    async def opened(cls, bootstrap: str) -> AsyncIterator[WholeTopics]:
        """Connect within the block."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
        )
        await consumer.start()
        try:
            yield cls(consumer)
        finally:
            await consumer.stop()

    async def records(self, *topics: str) -> AsyncIterator[Any]:
        """Yield every record that is on these topics now."""
        # A dead-letter topic has one partition.
        places = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in range(PARTITIONS.get(topic, 1))
        ]
        self._consumer.assign(places)
        ends = await self._consumer.end_offsets(places)
        at = await self._consumer.beginning_offsets(places)
        for place in places:
            self._consumer.seek(place, at[place])
        while any(at[place] < ends[place] for place in places):
            for place, records in (await self._consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    yield record
                at[place] = await self._consumer.position(place)

    async def dead_letters(self) -> dict[str, list[str]]:
        """Return the reasons of all dead letters, by topic."""
        found: dict[str, list[str]] = {}
        topics = [name for name in await self._consumer.topics() if name.endswith(_DLQ)]
        async for record in self.records(*topics):
            headers = {name: value.decode(errors="replace") for name, value in record.headers}
            place = f"offset {record.offset}, key {(record.key or b'').decode()}"
            found.setdefault(record.topic, []).append(f"{place}: {headers.get(_REASON)}")
        return found

    async def lags(self, bootstrap: str) -> dict[str, int]:
        """Return how many records each group has yet to read, by `group of topic`."""
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            lags: dict[str, int] = {}
            for topic in TOPICS:
                places = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
                ends = await self._consumer.end_offsets(places)
                for group in set(topic.readers) - {"analytics"}:
                    read = await admin.list_consumer_group_offsets(group, partitions=places)
                    done = {place: max(0, found.offset) for place, found in read.items()}
                    behind = sum(ends[place] - done.get(place, 0) for place in places)
                    lags[f"{group} of {topic.name}"] = behind
            return lags
        finally:
            await admin.close()


async def gather_topics(topics: WholeTopics, evidence: Evidence) -> None:
    """Fill in commands, terminal facts, tool results, cost facts and dead letters."""
    async for record in topics.records(RESPONSES_COMMANDS.name):
        data = _contract(record)
        if isinstance(data, RunResponseV1):
            mark = ((data.request or {}).get("metadata") or {}).get("mark") or data.principal.chat
            at = record.timestamp / 1000
            evidence.commands.append(Command(data.response_id, mark, at, data.store))
    async for record in topics.records(RESPONSES_LIFECYCLE.name):
        data = _contract(record)
        if isinstance(data, ResponseFinishedV1):
            fact = fact_of(data, record.timestamp / 1000)
            evidence.facts.setdefault(data.response_id, []).append(fact)
        elif isinstance(data, ResponseDeletedV1):
            evidence.deleted.add(data.response_id)
    async for record in topics.records(TOOLS_RESULTS.name):
        data = _contract(record)
        if isinstance(data, ToolResultV1):
            at = record.timestamp / 1000
            result = ToolResult(data.call_id, data.response_id, data.output, data.error, at)
            evidence.results.append(result)
    async for record in topics.records(COSTS_RECORDED.name):
        data = _contract(record)
        if isinstance(data, CostRecordedV1):
            evidence.lines_told.append(line_of(vars(data)))
    evidence.dead_letters = await topics.dead_letters()


def fact_of(data: ResponseFinishedV1, at: float) -> Fact:
    """Return a terminal fact as the rules see it; its digest leaves out times and the attempt."""
    told = data.payload.sha256 if data.payload else data.response
    digest = hashlib.sha256(orjson.dumps([data.status, told], option=orjson.OPT_SORT_KEYS))
    return Fact(
        response_id=data.response_id,
        attempt=data.attempt,
        status=data.status,
        at=at,
        digest=digest.hexdigest(),
        response=data.response,
        store=data.store,
        provider=data.provider,
        model=data.model,
        estimated=data.estimated_usage,
    )


def line_of(values: Any) -> Line:
    """Return a ledger line from a fact's or a row's fields."""
    return Line(**{name: values[name] for name in Line.__dataclass_fields__})


def _contract(record: Any) -> Contract | None:
    # What an injector of faults put there by itself is none.
    try:
        return decode(record.value or b"").data
    except ValueError:
        return None
