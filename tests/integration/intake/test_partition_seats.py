"""Replicas that share a database sit on partitions of their own."""

from __future__ import annotations

import asyncio

from services.intake.streaming.partition_seat import PartitionSeat
from services.kit.database import create_engine

PARTITIONS = 4
PATIENCE_SECONDS = 20.0


def seat(database_url: str, *, preferred: int = 0) -> PartitionSeat:
    engine = create_engine(database_url, pool_size=1, name="seat-tests")
    return PartitionSeat(engine, partitions=PARTITIONS, preferred=preferred)


async def test_replicas_that_start_at_once_get_different_partitions(database_url: str) -> None:
    seats = [seat(database_url, preferred=2) for _ in range(PARTITIONS)]
    taken = await asyncio.gather(*(one.take() for one in seats))
    assert sorted(taken) == list(range(PARTITIONS))
    for one in seats:
        await one.stop()


async def test_a_replica_too_many_shares_the_partition_it_prefers(database_url: str) -> None:
    seats = [seat(database_url) for _ in range(PARTITIONS)]
    for one in seats:
        await one.take()
    late = seat(database_url, preferred=3)
    assert await late.take() == 3
    for one in (*seats, late):
        await one.stop()


async def test_a_seat_is_free_again_when_its_replica_is_gone(database_url: str) -> None:
    first = seat(database_url, preferred=1)
    assert await first.take() == 1
    await first.start()
    await first.stop()
    second = seat(database_url, preferred=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await second.take() != 1:
            await second.stop()
            second = seat(database_url, preferred=1)
    await second.stop()


async def test_a_replica_without_a_database_reads_the_partition_it_prefers() -> None:
    one = seat("postgresql://nobody@127.0.0.1:1/nothing", preferred=2)
    assert await one.take() == 2
    await one.start()
    await one.stop()
