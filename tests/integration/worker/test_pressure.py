"""More than a worker has room for: commands wait in Kafka, orders in one statement for many."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.event import Envelope
from contracts.responses import CancelResponseV1, RunResponseV1
from contracts.topics import RESPONSES_CONTROL
from infra.topics import apply
from services.kit.batches import Subscription
from services.kit.codec import Stamp, encode
from services.kit.consumer import Consumers
from services.kit.deadletters import DeadLetters
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.worker.control import Control
from services.worker.leases.store import LeaseStore
from tests.integration.kit.topics import MakeTopic, dead_letters, make_topic, producer
from tests.integration.serving import until
from tests.unit.kit.records import OWNER
from tests.unit.worker.runs import job
from tests.unit.worker.test_commands import Runner, Worker

__all__ = ["dead_letters", "make_topic", "producer"]
COMMANDS = 2_000
ROOM = 50
BATCH = 20
DEPTH = 4
TEXT = "x" * 4_000
MOST_GROWTH_BYTES = 16 * 1024 * 1024
ORDERS = 3_000


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def send_all(producer: Producer, topic: str, messages: Sequence[bytes]) -> None:
    for begin in range(0, len(messages), 200):
        some = messages[begin : begin + 200]
        await asyncio.gather(*[await producer.enqueue(topic, one, partition=0) for one in some])


def command(response_id: str) -> bytes:
    given = job().command.model_copy(
        update={"response_id": response_id, "request": {"model": "m", "input": TEXT}}
    )
    now = given.accepted_at
    return Envelope.of(
        given, event_id=response_id, source="/test", subject=response_id, time=now
    ).encode()


async def test_what_a_full_worker_has_no_room_for_stays_in_kafka(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    runner = Runner(waits=True)
    worker = Worker(runner, most=ROOM)
    fatal: list[BaseException] = []
    consumers = Consumers(
        kafka_bootstrap, service="test", dead_letters=dead_letters, on_fatal=fatal.append
    )
    consumers.subscribe(
        Subscription(
            topics=(topic,),
            group=topic,
            handle=worker.commands.on_run_response,
            types=frozenset({RunResponseV1.TYPE}),
            max_records=BATCH,
            depth=DEPTH,
        )
    )
    await send_all(producer, topic, [command(f"resp_{number}") for number in range(ROOM)])
    await consumers.start()
    try:
        await until(lambda: worker.commands.full)
        gc.collect()
        before = rss_bytes()
        rest = [command(f"resp_{number}") for number in range(ROOM, COMMANDS)]
        await send_all(producer, topic, rest)
        del rest
        # A few batches are fetched and wait; nothing of them is claimed.
        assert await consumers.waiting() == COMMANDS - len(runner.ran)
        assert len(runner.ran) <= ROOM + DEPTH * BATCH
        assert worker.commands.full
        gc.collect()
        assert rss_bytes() - before < MOST_GROWTH_BYTES

        runner.go_on.set()
        await until(lambda: len(runner.ran) == COMMANDS)
        await until(lambda: consumers.lag() == 0)
        assert len({one.response_id for one in runner.ran}) == COMMANDS
        assert fatal == []
    finally:
        await consumers.stop()
        await worker.stop()


class Counting(LeaseStore):
    """Counts its statements; they wait until they may go."""

    statements = 0
    may_go: asyncio.Event

    async def cancel(self, *response_ids: str) -> None:
        await self.may_go.wait()
        self.statements += 1
        await super().cancel(*response_ids)


async def test_an_hour_of_orders_is_heard_in_few_statements_and_no_tasks(
    kafka_bootstrap: str, producer: Producer, dead_letters: DeadLetters, engine: AsyncEngine
) -> None:
    ids = [new_id("resp") for _ in range(ORDERS)]
    orders = []
    for one in ids:
        order = CancelResponseV1(response_id=one, principal=OWNER)
        stamp = Stamp(event_id=one, source="/test", subject=one, time=job().command.accepted_at)
        orders.append(encode(order, stamp))
    await apply(kafka_bootstrap, topics=[RESPONSES_CONTROL])
    await send_all(producer, RESPONSES_CONTROL.name, orders)
    store = Counting(engine, owner="a", seconds=60)
    store.may_go = asyncio.Event()
    stopped: list[str] = []
    control = Control(store, stopped.append, bootstrap=kafka_bootstrap, dead_letters=dead_letters)
    await control.start()
    try:
        await until(lambda: control.waiting >= ORDERS)
        assert len(control._tasks) == 1
        store.may_go.set()
        await until(lambda: set(stopped) >= set(ids))
        assert store.statements <= 12
    finally:
        await control.stop()
    async with engine.connect() as connection:
        counted = await connection.scalar(
            text("SELECT count(*) FROM worker.leases WHERE cancelled AND response_id = ANY(:ids)"),
            {"ids": ids},
        )
    assert counted == ORDERS
