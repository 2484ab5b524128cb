"""The Kafka edge on a real broker: facts in, facts and dead letters out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from contracts.artifacts import ArtifactExpiredV1, ArtifactStoredV1
from contracts.event import Contract, Envelope
from contracts.responses import ClaimCheck, ResponseFinishedV1, ResponseStartedV1
from contracts.topics import ARTIFACTS_EXPIRED, ARTIFACTS_STORED
from infra.topics import apply as apply_topics
from services.artifacts.clients import KafkaAnnouncer
from services.artifacts.domain import Limits, Query, artifact_id
from services.artifacts.service import Keeper
from services.artifacts.store import PostgresRecords
from services.artifacts.subscribers import TYPES, LifecycleSubscriber
from services.kit.batches import Subscription
from services.kit.blobs.disk import DiskBlobs
from services.kit.claimcheck import check_in
from services.kit.clock import SystemClock
from services.kit.codec import Stamp, decode, dumps, encode
from services.kit.consumer import Consumers
from services.kit.deadletters import DeadLetters
from services.kit.producer import Producer
from tests.integration.artifacts.conftest import NOW
from tests.integration.artifacts.facts import deleted, finished, image_item, png

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WAIT_SECONDS = 60
Fatal = list[BaseException]


@dataclass
class Edge:
    """The service's Kafka edge on a topic of one test alone."""

    topic: str
    bootstrap: str
    producer: Producer
    fatal: Fatal

    async def tell(self, fact: Contract, response_id: str) -> None:
        stamp = Stamp(
            event_id=uuid4().hex, source="/test", subject=response_id, time=NOW, traceparent=TRACE
        )
        await self.producer.send(self.topic, encode(fact, stamp), key=response_id)

    async def heard(self, topic: str, wanted: Callable[[Any], bool], count: int = 1) -> list[Any]:
        """Return the first `count` records of a topic that are wanted, from its beginning."""
        kafka = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await kafka.start()
        found: list[Any] = []
        try:
            partitions = (await kafka._client.fetch_all_metadata()).partitions_for_topic(topic)
            kafka.assign([TopicPartition(topic, number) for number in partitions])
            async with asyncio.timeout(WAIT_SECONDS):
                while len(found) < count:
                    for records in (await kafka.getmany(timeout_ms=200)).values():
                        found += [record for record in records if wanted(record)]
        finally:
            await kafka.stop()
        assert self.fatal == []
        return found

    async def announced(self, topic: str, response_id: str, count: int = 1) -> list[Envelope]:
        def is_ours(record: Any) -> bool:
            return response_id.encode() in record.value

        records = await self.heard(topic, is_ours, count)
        assert all(record.key == decode(record.value).subject.encode() for record in records)
        return [decode(record.value) for record in records]

    async def buried(self, response_id: str) -> tuple[bytes, dict[str, bytes]]:
        """Return the bytes and headers of the dead letter that mentions a response."""
        [record] = await self.heard(
            f"{self.topic}.dlq", lambda record: response_id.encode() in record.value
        )
        return record.value, dict(record.headers)


@pytest.fixture
async def topic(kafka_bootstrap: str) -> AsyncIterator[str]:
    await apply_topics(kafka_bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    name = f"test-{uuid4().hex}"
    names = [name, f"{name}.dlq"]
    await admin.create_topics(
        [NewTopic(one, num_partitions=1, replication_factor=1) for one in names]
    )
    yield name
    await admin.delete_topics(names)
    await admin.close()


@pytest.fixture
async def edge(
    kafka_bootstrap: str, topic: str, records: PostgresRecords, blobs: DiskBlobs
) -> AsyncIterator[Edge]:
    producer = Producer(kafka_bootstrap, client_id="test")
    announcer = KafkaAnnouncer(producer, SystemClock())
    keeper = Keeper(records, blobs, announcer, remember_deleted=timedelta(days=14))
    fatal: Fatal = []
    consumers = Consumers(
        kafka_bootstrap,
        service="artifacts",
        dead_letters=DeadLetters(producer, service="artifacts"),
        on_fatal=fatal.append,
    )
    subscriber = LifecycleSubscriber(
        keeper,
        blobs,
        limits=Limits(max_files=8, max_bytes=2_000_000),
        max_response_bytes=3_000_000,
        handled=lambda _: None,
    )
    consumers.subscribe(
        Subscription(topics=(topic,), group=topic, types=TYPES, handle=subscriber.on_lifecycle)
    )
    await producer.start()
    await consumers.start()
    yield Edge(topic, kafka_bootstrap, producer, fatal)
    await consumers.stop()
    await producer.stop()


@pytest.fixture
def response_id() -> str:
    return f"resp_{uuid4().hex}"


@pytest.fixture
def kept(records: PostgresRecords) -> Callable[[str], Awaitable[int]]:
    """Return what counts the artifacts of a response."""

    async def count(response_id: str) -> int:
        query = Query(project=None, limit=100, response_id=response_id)
        return len(await records.page(query))

    return count


async def test_a_file_becomes_a_fact_and_its_deletion_another(
    edge: Edge, response_id: str, kept: Callable[[str], Awaitable[int]]
) -> None:
    await edge.tell(finished(response_id, [image_item(png("a"))]), response_id)

    [stored] = await edge.announced(ARTIFACTS_STORED.name, response_id)
    assert isinstance(stored.data, ArtifactStoredV1)
    assert stored.data.artifact_id == stored.subject == artifact_id(response_id, "ig_0", 0)
    assert stored.data.principal.project == "research"
    assert (stored.data.kind, stored.data.content_type) == ("image", "image/png")
    assert (stored.source, stored.traceparent) == ("/artifacts", TRACE)

    await edge.tell(deleted(response_id), response_id)

    [expired] = await edge.announced(ARTIFACTS_EXPIRED.name, response_id)
    assert isinstance(expired.data, ArtifactExpiredV1)
    assert expired.data.artifact_id == stored.data.artifact_id
    assert expired.data.reason == "response_deleted"
    await until_none(kept, response_id)


async def until_none(kept: Callable[[str], Awaitable[int]], response_id: str) -> None:
    # The fact is sent just before its transaction commits.
    deadline = time.monotonic() + WAIT_SECONDS
    while await kept(response_id):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_fact_that_comes_again_is_announced_under_the_same_id(
    edge: Edge, response_id: str
) -> None:
    fact = finished(response_id, [image_item(png("a"))])
    await edge.tell(fact, response_id)
    await edge.tell(fact, response_id)

    first, second = await edge.announced(ARTIFACTS_STORED.name, response_id, count=2)

    assert first.id == second.id
    assert first.data == second.data


async def test_nothing_is_kept_of_a_response_that_is_not_to_be_stored(
    edge: Edge, response_id: str, kept: Callable[[str], Awaitable[int]]
) -> None:
    last = f"{response_id}_last"
    items = [image_item(png("a"))]
    await edge.tell(
        ResponseStartedV1(response_id=response_id, attempt=1, principal=deleted("x").principal),
        response_id,
    )
    await edge.tell(finished(response_id, items, store=False), response_id)
    await edge.tell(finished(last, items), last)

    await edge.announced(ARTIFACTS_STORED.name, last)

    assert await kept(response_id) == 0
    assert await kept(last) == 1


async def test_a_response_too_big_for_a_message_is_fetched(
    edge: Edge, response_id: str, blobs: DiskBlobs
) -> None:
    content = png("") + os.urandom(1_000_000)
    payload = dumps({"id": response_id, "output": [image_item(content)]})
    claim = await check_in(blobs, key=response_id, payload=payload)
    assert claim is not None

    await edge.tell(finished(response_id, [], response=None, payload=claim), response_id)

    [stored] = await edge.announced(ARTIFACTS_STORED.name, response_id)
    assert isinstance(stored.data, ArtifactStoredV1)
    assert stored.data.size_bytes == len(content)


def claimed(response_id: str, claim: ClaimCheck) -> ResponseFinishedV1:
    return finished(response_id, [], response=None, payload=claim)


async def unreadable(name: str, response_id: str, blobs: DiskBlobs) -> ResponseFinishedV1:
    """Return a fact that can never be handled, for the reason that `name` gives."""
    claim = ClaimCheck(key=f"claims/{response_id}", size_bytes=600_000, sha256="0" * 64)
    if name == "there is no response":
        return claimed(response_id, claim)
    if name == "more than 3000000":
        return claimed(response_id, claim.model_copy(update={"size_bytes": 3_000_001}))
    if name == "does not match its sha256":
        await blobs.put(claim.key, b"{}", content_type="application/json")
        return claimed(response_id, claim)
    if name == "out of int32 range":
        return finished(response_id, [image_item(png("a"))], attempt=2**31)
    payload = b"[" * 600_000 if name == "not JSON" else dumps(["x" * 600_000])
    stored = await check_in(blobs, key=response_id, payload=payload)
    assert stored is not None
    return claimed(response_id, stored)


@pytest.mark.parametrize(
    "reason",
    [
        "there is no response",
        "more than 3000000",
        "does not match its sha256",
        "not JSON",
        "not a JSON object",
        "out of int32 range",
    ],
)
async def test_a_fact_that_can_never_be_handled_is_a_dead_letter_and_the_next_is_handled(
    edge: Edge, response_id: str, blobs: DiskBlobs, reason: str
) -> None:
    next_id = f"{response_id}_next"
    await edge.tell(await unreadable(reason, response_id, blobs), response_id)
    await edge.tell(finished(next_id, [image_item(png("a"))]), next_id)

    value, headers = await edge.buried(response_id)

    assert reason in headers["antiphon-dlq-reason"].decode()
    assert headers["antiphon-dlq-service"] == b"artifacts"
    assert headers["antiphon-dlq-attempts"] == b"1"
    assert decode(value).subject == response_id
    await edge.announced(ARTIFACTS_STORED.name, next_id)


async def test_bytes_that_are_no_message_are_a_dead_letter_as_they_are(
    edge: Edge, response_id: str
) -> None:
    poison = b"\xff\0 not a message " + response_id.encode()
    next_id = f"{response_id}_next"
    await edge.producer.send(edge.topic, poison, key=response_id)
    await edge.tell(finished(next_id, [image_item(png("a"))]), next_id)

    value, _ = await edge.buried(response_id)

    assert value == poison
    await edge.announced(ARTIFACTS_STORED.name, next_id)
