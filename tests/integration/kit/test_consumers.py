"""Group consumers on a real broker: nothing is skipped, nothing stops them but what must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from aiokafka.admin import AIOKafkaAdminClient

from contracts.responses import ResponseDeletedV1
from services.kit.batches import Handler, Received, Subscription
from services.kit.consumer import Consumers
from services.kit.deadletters import DeadLetters, RefusalError
from services.kit.producer import Producer
from services.kit.retry import Backoff
from tests.integration.kit.topics import MakeTopic, read_all
from tests.integration.serving import until
from tests.unit.kit.records import encoded, fact

AT_ONCE = Backoff(attempts=2, first_seconds=0.0, longest_seconds=0.0)
NOT_UTF8 = b"\xff\xfe\x00"


class Handling:
    """Notes the ids it gets; refuses `refused`, and fails for `failing` as an outage would."""

    def __init__(self, *, refused: str = "", failing: str = "") -> None:
        self.seen: list[str] = []
        self.refused = refused
        self.failing = failing

    async def __call__(self, batch: list[Received]) -> None:
        ids = [cast("ResponseDeletedV1", one.envelope.data).response_id for one in batch]
        if self.failing in ids:
            raise OSError("the disk is away")
        if self.refused in ids:
            raise RefusalError("not this one")
        self.seen += ids


@asynccontextmanager
async def consuming(
    bootstrap: str, topic: str, handle: Handler, dead_letters: DeadLetters
) -> AsyncIterator[tuple[Consumers, list[BaseException]]]:
    fatal: list[BaseException] = []
    consumers = Consumers(
        bootstrap, service="test", dead_letters=dead_letters, on_fatal=fatal.append
    )
    subscription = Subscription(
        topics=(topic,),
        group=topic,
        handle=handle,
        types=frozenset({ResponseDeletedV1.TYPE}),
        max_records=10,
        backoff=AT_ONCE,
    )
    consumers.subscribe(subscription)
    await consumers.start()
    try:
        yield consumers, fatal
    finally:
        await consumers.stop()


async def put(producer: Producer, topic: str, *ids: str, partition: int = 0) -> None:
    for one in ids:
        await producer.send(topic, encoded(fact(one)), key=one, partition=partition)


async def committed(bootstrap: str, group: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
        return max((int(place.offset) for place in offsets.values()), default=0)
    finally:
        await admin.close()


async def test_poison_goes_to_the_dead_letters_whole_and_the_rest_is_handled(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    handle = Handling(refused="c")
    await put(producer, topic, "a")
    await producer.send(
        topic, b"\x00poison", key=NOT_UTF8, partition=0, headers=[("trace", NOT_UTF8)]
    )
    await put(producer, topic, "b", "c", "d")
    async with consuming(kafka_bootstrap, topic, handle, dead_letters) as (consumers, fatal):
        await until(lambda: handle.seen[-1:] == ["d"])
        await until(lambda: consumers.lag() == 0)
    assert handle.seen == ["a", "b", "d"]
    assert fatal == []
    poison, refused = await read_all(kafka_bootstrap, f"{topic}.dlq")
    assert (poison.key, poison.value) == (NOT_UTF8, b"\x00poison")
    headers = dict(poison.headers)
    assert headers["trace"] == NOT_UTF8
    assert headers["antiphon-dlq-topic"] == topic.encode()
    assert headers["antiphon-dlq-offset"] == b"1"
    assert b"Error" in headers["antiphon-dlq-reason"]
    assert dict(refused.headers)["antiphon-dlq-reason"] == b"RefusalError: not this one"
    assert await committed(kafka_bootstrap, topic) == 5


async def test_what_could_not_be_handled_is_not_committed_and_comes_again(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    failing = Handling(failing="b")
    await put(producer, topic, "a")
    async with consuming(kafka_bootstrap, topic, failing, dead_letters) as (_, fatal):
        await until(lambda: failing.seen == ["a"])
        await put(producer, topic, "b")
        await until(lambda: fatal)
        # What comes later must not be taken, since its commit would cover what failed.
        await put(producer, topic, "c")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 4, "the stop waited for a lost batch"
    assert failing.seen == ["a"]
    assert await committed(kafka_bootstrap, topic) == 1

    healed = Handling()
    async with consuming(kafka_bootstrap, topic, healed, dead_letters):
        await until(lambda: healed.seen == ["b", "c"])
    assert await read_all(kafka_bootstrap, f"{topic}.dlq") == []


async def test_a_second_member_takes_over_and_nothing_is_left_out(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic(partitions=4)
    first, second = Handling(), Handling()
    wanted = {f"r{number}" for number in range(80)}

    def seen() -> set[str]:
        return {*first.seen, *second.seen}

    async with consuming(kafka_bootstrap, topic, second, dead_letters):
        async with consuming(kafka_bootstrap, topic, first, dead_letters):
            for number in range(40):
                await put(producer, topic, f"r{number}", partition=number % 4)
            await until(lambda: len(seen()) == 40)
        for number in range(40, 80):
            await put(producer, topic, f"r{number}", partition=number % 4)
        await until(lambda: seen() == wanted)


async def test_a_batch_that_is_at_hand_when_the_service_stops_is_finished(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    begun, go_on = asyncio.Event(), asyncio.Event()
    finished: list[int] = []

    async def handle(batch: list[Received]) -> None:
        begun.set()
        await go_on.wait()
        finished.append(len(batch))

    async with consuming(kafka_bootstrap, topic, handle, dead_letters) as (consumers, _):
        await put(producer, topic, "a")
        await begun.wait()
        stopping = asyncio.create_task(consumers.stop())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
    assert finished == [1]
    assert await committed(kafka_bootstrap, topic) == 1


async def test_consumers_start_with_any_of_several_addresses(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    handle = Handling()
    addresses = f"{kafka_bootstrap},{kafka_bootstrap}"
    async with consuming(addresses, topic, handle, dead_letters):
        await put(producer, topic, "a")
        await until(lambda: handle.seen == ["a"])
