"""Dead letters on a real broker: shown, sent again as they were, dropped, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.topics import ARTIFACTS_EXPIRED, MAX_MESSAGE_BYTES
from infra import dead_letters, topics
from infra.dead_letters import Wanted
from services.kit.deadletters import DeadLetters, RefusalError
from services.kit.producer import Producer

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


async def test_letters_of_one_reason_are_sent_again_and_the_others_go_on_waiting(
    kafka_bootstrap: str, producer: AIOKafkaProducer
) -> None:
    for value, reason in ((b"1", "slow"), (b"2", "Bad"), (b"3", "slow"), (b"4", "bad")):
        headers = [("antiphon-dlq-reason", reason.encode()), ("antiphon-dlq-service", b"s")]
        await producer.send_and_wait(f"{TOPIC}.dlq", value, key=value, headers=headers)
    bad = Wanted(reason="bad", service="s")

    assert [one.value for one in await shown(kafka_bootstrap, bad)] == [b"2", b"4"]
    assert await dead_letters.retry(kafka_bootstrap, TOPIC, most=9, wanted=bad) == 2
    assert await dead_letters.retry(kafka_bootstrap, TOPIC, most=9, wanted=bad) == 0
    assert [one.value for one in await shown(kafka_bootstrap)] == [b"1", b"3"]
    assert await count(kafka_bootstrap) == 2
    third = (await shown(kafka_bootstrap))[1].offset
    only = Wanted(offsets={third}, key="3")
    assert await dead_letters.drop(kafka_bootstrap, TOPIC, most=9, wanted=only) == 1
    assert [one.value for one in await shown(kafka_bootstrap)] == [b"1"]
    assert await dead_letters.drop(kafka_bootstrap, TOPIC, most=9) == 1
    assert await count(kafka_bootstrap) == 0


async def shown(bootstrap: str, wanted: Wanted | None = None) -> list[dead_letters.Letter]:
    return await dead_letters.show(bootstrap, TOPIC, most=100, wanted=wanted or Wanted())


@dataclass
class Original:
    """A message as a consumer gave it."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int
    topic: str = TOPIC
    offset: int = 7
    timestamp: int = 0


ORIGINALS = [
    Original(None, b"without a key", [], 3),
    Original(b"art_1", None, [("tombstone", b"")], 5),
    Original(b"\xff\x00", b"\x00\xff\xfe", [("binary", b"\xff\x00"), ("twice", b"1")], 0),
    Original(b"twice", b"", [("same", b"1"), ("same", b"2")], 1),
    Original(b"large", b"x" * (MAX_MESSAGE_BYTES - 2_000), [("h", b"y" * 1_000)], 2),
]


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda one: str(one.key)[:12])
async def test_a_message_comes_back_from_the_dead_letters_byte_for_byte(
    kafka_bootstrap: str, producer: AIOKafkaProducer, original: Original
) -> None:
    services = Producer(kafka_bootstrap, client_id="test")
    await services.start()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap,
        group_id=None,
        max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
    )
    await consumer.start()
    place = TopicPartition(TOPIC, original.partition)
    try:
        consumer.assign([place])
        await consumer.seek_to_end(place)
        await consumer.position(place)
        for error in (ValueError("x" * 100_000), RefusalError("no")):
            # What was sent again and failed again has the headers of its own end alone.
            await DeadLetters(services, service="s").bury(original, error)
            assert await dead_letters.retry(kafka_bootstrap, TOPIC, most=1) == 1
            record = await consumer.getone()
            came = (record.key, record.value, list(record.headers), record.partition)
            assert came == (original.key, original.value, original.headers, original.partition)
            original = replace(original, headers=list(record.headers), offset=record.offset)
    finally:
        await consumer.stop()
        await services.stop()


async def test_the_letter_of_a_partition_that_is_gone_goes_where_its_key_says(
    kafka_bootstrap: str, producer: AIOKafkaProducer
) -> None:
    headers = [("antiphon-dlq-partition", b"999")]
    await producer.send_and_wait(f"{TOPIC}.dlq", b"one", key=b"art_1", headers=headers)
    assert await dead_letters.retry(kafka_bootstrap, TOPIC, most=1) == 1
