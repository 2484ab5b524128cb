"""Members of a group that come and go without end: nothing is lost, and work goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

from contracts.responses import ResponseDeletedV1
from services.kit.batches import Received, Subscription
from services.kit.consumer import Consumers
from services.kit.deadletters import DeadLetters
from services.kit.producer import Producer
from tests.integration.kit.topics import MakeTopic
from tests.integration.serving import until
from tests.unit.kit.records import encoded, fact

PARTITIONS = 6
GUESTS = 6
LONGEST_SILENCE_SECONDS = 5.0
PACE_SECONDS = 0.02
BURST = 10


class Ledger:
    """A handler that writes each id once, as a database with a key does, however often it comes."""

    def __init__(self) -> None:
        self.rows: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.last_row_at = 0.0
        self.longest_silence = 0.0

    async def __call__(self, batch: list[Received]) -> None:
        await asyncio.sleep(0.005)
        now = asyncio.get_running_loop().time()
        for one in batch:
            response_id = cast("ResponseDeletedV1", one.envelope.data).response_id
            self.seen[response_id] += 1
            if response_id not in self.rows:
                self.rows.add(response_id)
                self.longest_silence = max(self.longest_silence, now - (self.last_row_at or now))
                self.last_row_at = now


def member(
    bootstrap: str, topic: str, ledger: Ledger, letters: DeadLetters, fatal: list[BaseException]
) -> Consumers:
    made = Consumers(bootstrap, service="test", dead_letters=letters, on_fatal=fatal.append)
    made.subscribe(
        Subscription(
            topics=(topic,),
            group=topic,
            handle=ledger,
            types=frozenset({ResponseDeletedV1.TYPE}),
            max_records=50,
            depth=2,
        )
    )
    return made


async def test_a_storm_of_rebalances_loses_nothing_and_does_not_stop_the_work(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic(partitions=PARTITIONS)
    ledger, fatal = Ledger(), list[BaseException]()
    sent: list[str] = []
    over = asyncio.Event()

    async def load() -> None:
        while not over.is_set():
            for _ in range(BURST):
                response_id = f"resp_{len(sent)}"
                sent.append(response_id)
                await producer.send(
                    topic,
                    encoded(fact(response_id)),
                    key=response_id,
                    partition=len(sent) % PARTITIONS,
                )
            await asyncio.sleep(PACE_SECONDS)

    async def come_and_go(*, hasty: bool) -> None:
        guest = member(kafka_bootstrap, topic, ledger, dead_letters, fatal)
        idle = guest.progress()
        await guest.start()
        try:
            # A hasty guest leaves while the group still makes room for it, the others while they
            # work on partitions of their own.
            await until(lambda: hasty or guest.progress() != idle)
        finally:
            await guest.stop()

    steady = member(kafka_bootstrap, topic, ledger, dead_letters, fatal)
    await steady.start()
    work = asyncio.create_task(load())
    try:
        for number in range(GUESTS):
            await come_and_go(hasty=number % 2 == 1)
        over.set()
        await work
        await until(lambda: len(ledger.rows) == len(sent))
        await until(lambda: steady.lag() == 0)
    finally:
        over.set()
        await asyncio.wait([work])
        await steady.stop()
    assert ledger.rows == set(sent)
    assert fatal == []
    # A batch comes again when its partition went to another member before its commit; not all do.
    repeats = sum(ledger.seen.values()) - len(sent)
    assert repeats < len(sent)
    # Every change waits for the next heartbeat of each member, 1.5 s apart.
    assert ledger.longest_silence < LONGEST_SILENCE_SECONDS, "work stood still during the storm"
