"""Commands that are sent again on a real topic, those that are gone, and those nobody can read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.responses import RunResponseV1
from contracts.topics import RESPONSES_COMMANDS
from infra.topics import apply
from services.kit.batches import Received, Subscription
from services.kit.consumer import Consumers
from services.kit.deadletters import Record
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.worker.leases.letters import CommandLetters
from services.worker.leases.rules import CommandPlace, Expired
from services.worker.leases.store import LeaseStore
from services.worker.leases.sweeps import MOST_SENDS, Republisher
from services.worker.queue.reader import CommandReader
from services.worker.subscribers import UnknownCommands
from tests.integration.worker.test_leases import states, until
from tests.unit.kit.records import Graveyard

TOPIC = RESPONSES_COMMANDS.name
NEWER = (
    b'{"specversion":"1.0","id":"e","source":"/next","type":"antiphon.response.run.v99",'
    b'"subject":"s","time":"2027-01-01T00:00:00Z","data":{"whatever":"it says"}}'
)


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    await apply(kafka_bootstrap, topics=[RESPONSES_COMMANDS])
    made = Producer(kafka_bootstrap, client_id="sweep-tests")
    await made.start()
    yield made
    await made.stop()


class Letters(Graveyard):
    """Remembers what was buried, whole."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    async def bury(self, record: Record, error: BaseException, *, attempts: int = 1) -> None:
        self.records.append(record)
        await super().bury(record, error, attempts=attempts)


async def put(producer: Producer, response_id: str, value: bytes, partition: int) -> CommandPlace:
    future = await producer.enqueue(
        TOPIC, value, key=response_id, partition=partition, headers=[("binary", b"\xff\x00")]
    )
    return CommandPlace(response_id, partition, (await future).offset)


async def copies(bootstrap: str, places: Sequence[CommandPlace]) -> list[Record]:
    """What stands behind the last of those places for the same responses."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(TOPIC, n) for n in range(RESPONSES_COMMANDS.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        known = {(place.partition, place.offset) for place in places}
        keys = {place.response_id.encode() for place in places}
        found: list[Record] = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                batch = await consumer.getmany(partition, timeout_ms=1_000)
                found += [one for records in batch.values() for one in records]
        return [
            one for one in found if one.key in keys and (one.partition, one.offset) not in known
        ]
    finally:
        await consumer.stop()


def republisher(bootstrap: str, producer: Producer, letters: Letters) -> Republisher:
    reader = partial(CommandReader, bootstrap, client_id="sweep-tests")
    return Republisher(producer, CommandLetters(letters), reader=reader)


async def test_many_commands_are_sent_again_as_they_are_with_one_connection(
    kafka_bootstrap: str, producer: Producer
) -> None:
    places = [await put(producer, new_id("resp"), NEWER, n % 12) for n in range(30)]
    letters = Letters()
    expired = [Expired(place, resent=0) for place in places]

    assert await republisher(kafka_bootstrap, producer, letters).send_again(expired) == []

    sent = await copies(kafka_bootstrap, places)
    assert sorted(one.key or b"" for one in sent) == sorted(p.response_id.encode() for p in places)
    assert {(one.value, tuple(one.headers)) for one in sent} == {
        (NEWER, (("binary", b"\xff\x00"),))
    }
    assert letters.records == []


async def test_what_is_gone_and_what_nobody_could_read_for_long_are_dead_letters(
    kafka_bootstrap: str, producer: Producer
) -> None:
    newer = await put(producer, new_id("resp"), NEWER, 3)
    gone = CommandPlace(new_id("resp"), 3, newer.offset + 1_000_000)
    letters = Letters()
    expired = [Expired(newer, MOST_SENDS), Expired(gone, 0)]

    hopeless = await republisher(kafka_bootstrap, producer, letters).send_again(expired)

    assert set(hopeless) == {newer.response_id, gone.response_id}
    assert [(one.key, one.value, one.offset) for one in letters.records] == [
        (newer.response_id.encode(), NEWER, newer.offset),
        (gone.response_id.encode(), None, gone.offset),
    ]
    assert await copies(kafka_bootstrap, [newer]) == []


async def test_a_command_of_a_kind_that_only_newer_workers_know_waits_for_one_of_them(
    kafka_bootstrap: str, producer: Producer, engine: AsyncEngine
) -> None:
    store = LeaseStore(engine, owner="old", seconds=60)
    letters = Letters()
    fatal: list[BaseException] = []
    unknown = UnknownCommands(store, CommandLetters(letters))
    consumers = Consumers(
        kafka_bootstrap, service="worker", dead_letters=letters, on_fatal=fatal.append
    )
    response_id, nameless = new_id("resp"), uuid4().hex

    async def ours_alone(records: Sequence[Record]) -> None:
        ours = {response_id.encode(), nameless.encode()}
        await unknown.on_unknown([one for one in records if one.key in ours])

    async def claim(_: list[Received]) -> None: ...

    consumers.subscribe(
        Subscription(
            topics=(TOPIC,),
            group=uuid4().hex,
            types=frozenset({RunResponseV1.TYPE}),
            handle=claim,
            unknown=ours_alone,
        )
    )
    await put(producer, nameless, NEWER, 1)
    place = await put(producer, response_id, NEWER, 1)
    await consumers.start()

    async def noted() -> bool:
        return response_id in await states(engine)

    await until(noted)
    await consumers.stop()

    assert await states(engine) == {response_id: ("abandoned", 0)}
    # A command that names no response can't be waited for.
    assert [one.key for one in letters.records] == [nameless.encode()]
    assert fatal == []
    [taken] = (await LeaseStore(engine, owner="new", seconds=60).claim([place])).values()
    assert (taken.attempt, taken.tries) == (1, 1)
