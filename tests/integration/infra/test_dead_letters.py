"""Dead letters on a real broker: shown, sent again as they were, dropped, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.topics import ARTIFACTS_EXPIRED
from infra import dead_letters, topics

TOPIC = ARTIFACTS_EXPIRED.name
ORIGINAL = [("traceparent", b"00-1"), ("binary", b"\xff\x00")]
REASON = [("antiphon-dlq-reason", b"ValueError: no"), ("antiphon-dlq-offset", b"7")]


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    await topics.apply(kafka_bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    await producer.start()
    yield producer
    await producer.stop()
    await dead_letters.drop(kafka_bootstrap, TOPIC, most=1_000)


async def bury(producer: AIOKafkaProducer, value: bytes) -> None:
    await producer.send_and_wait(f"{TOPIC}.dlq", value, key=b"art_1", headers=[*ORIGINAL, *REASON])


async def count(bootstrap: str) -> int:
    return next(c.waiting for c in await dead_letters.waiting(bootstrap) if c.topic == TOPIC)


async def test_a_letter_is_shown_with_its_reason_apart_from_its_own_headers(
    kafka_bootstrap: str, producer: AIOKafkaProducer
) -> None:
    await bury(producer, b"\x00poison")

    (letter,) = await dead_letters.show(kafka_bootstrap, f"{TOPIC}.dlq", most=5)

    assert (letter.value, letter.key) == (b"\x00poison", b"art_1")
    assert list(letter.headers) == ORIGINAL
    assert letter.about == {"reason": "ValueError: no", "offset": "7"}
    assert await count(kafka_bootstrap) == 1


async def test_a_letter_is_sent_again_once_with_its_original_bytes_and_headers(
    kafka_bootstrap: str, producer: AIOKafkaProducer
) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=None)
    await consumer.start()
    try:
        places = [TopicPartition(TOPIC, n) for n in range(ARTIFACTS_EXPIRED.partitions)]
        consumer.assign(places)
        await consumer.seek_to_end(*places)
        for place in places:
            await consumer.position(place)
        await bury(producer, b"one")
        await bury(producer, b"two")

        assert await dead_letters.retry(kafka_bootstrap, TOPIC, most=1) == 1

        record = await consumer.getone()
        assert (record.value, record.key, list(record.headers)) == (b"one", b"art_1", ORIGINAL)
        assert [x.value for x in await dead_letters.show(kafka_bootstrap, TOPIC, most=9)] == [
            b"two"
        ]
    finally:
        await consumer.stop()


async def test_dropped_letters_wait_no_more(
    kafka_bootstrap: str, producer: AIOKafkaProducer
) -> None:
    for value in (b"one", b"two", b"three"):
        await bury(producer, value)

    assert await dead_letters.drop(kafka_bootstrap, TOPIC, most=2) == 2

    assert await count(kafka_bootstrap) == 1
    assert await dead_letters.drop(kafka_bootstrap, TOPIC, most=2) == 1
    assert await dead_letters.drop(kafka_bootstrap, TOPIC, most=2) == 0


async def test_a_topic_nobody_knows_is_refused_by_name(kafka_bootstrap: str) -> None:
    with pytest.raises(dead_letters.UnknownTopicError, match=r"nonsense.*responses\.commands"):
        await dead_letters.show(kafka_bootstrap, "nonsense", most=1)
