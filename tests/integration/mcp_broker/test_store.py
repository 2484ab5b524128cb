"""The records of calls in a real PostgreSQL."""

from __future__ import annotations

import asyncio

from sqlalchemy import func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.tools import CallMcpToolV1
from services.kit.migrate import migrate
from services.mcp_broker.service import Accepted
from services.mcp_broker.store import PostgresCalls, calls
from tests.integration.mcp_broker.calls import command


def records(engine: AsyncEngine, *, owner: str = "a", lease_seconds: float = 60) -> PostgresCalls:
    return PostgresCalls(engine, owner=owner, lease_seconds=lease_seconds)


def accepted(asked: CallMcpToolV1) -> Accepted:
    return Accepted(command=asked, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")


async def expire(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        past = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
        await connection.execute(update(calls).values(lease_expires_at=past))


async def states(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(calls.c.call_id, calls.c.state))
        return {row.call_id: row.state for row in rows}


async def test_a_batch_is_claimed_once(engine: AsyncEngine) -> None:
    batch = [accepted(command()) for _ in range(200)]
    assert await records(engine).claim(batch) == []
    again = await records(engine).claim(batch)
    assert {record.call.command.call_id for record in again} == {
        call.command.call_id for call in batch
    }
    assert all(record.result is None for record in again)


async def test_a_call_twice_in_one_batch_is_one_record(engine: AsyncEngine) -> None:
    call = accepted(command())
    assert await records(engine).claim([call, call]) == []
    assert len(await states(engine)) == 1


async def test_two_brokers_that_claim_the_same_calls_share_them(engine: AsyncEngine) -> None:
    batch = [accepted(command()) for _ in range(100)]
    seen = await asyncio.gather(
        records(engine, owner="a").claim(batch), records(engine, owner="b").claim(batch)
    )
    assert len(seen[0]) + len(seen[1]) == 100


async def test_what_was_recorded_comes_back_whole(engine: AsyncEngine) -> None:
    call = accepted(command("note", {"text": "nul \x00 and ü", "n": 1}))
    await records(engine).claim([call])
    [seen] = await records(engine).claim([call])
    assert seen.call == call


async def test_the_partition_that_asked_last_gets_the_answer(engine: AsyncEngine) -> None:
    asked = command(partition=1)
    store = records(engine)
    await store.claim([accepted(asked)])
    moved = asked.model_copy(update={"reply_partition": 6})
    [seen] = await store.claim([accepted(moved)])
    assert seen.call.command.reply_partition == 6
    assert await store.finish(asked.call_id, b"result") == 6


async def test_a_finished_call_is_seen_with_its_result(engine: AsyncEngine) -> None:
    call = accepted(command())
    store = records(engine)
    await store.claim([call])
    assert await store.finish(call.command.call_id, b"\x00result") == 3
    [seen] = await store.claim([call])
    assert seen.result == b"\x00result"


async def test_only_the_owner_of_a_lease_can_finish(engine: AsyncEngine) -> None:
    call = accepted(command())
    first, second = records(engine, owner="a"), records(engine, owner="b")
    await first.claim([call])
    assert await second.take_expired(10) == []
    await expire(engine)
    [taken] = await second.take_expired(10)
    assert taken.call == call
    assert await first.finish(call.command.call_id, b"late") is None
    assert await second.finish(call.command.call_id, b"right") == 3


async def test_expired_calls_are_shared_between_brokers(engine: AsyncEngine) -> None:
    await records(engine).claim([accepted(command()) for _ in range(50)])
    await expire(engine)
    taken = await asyncio.gather(
        *(records(engine, owner=owner).take_expired(20) for owner in ("b", "c", "d", "e"))
    )
    ids = [record.call.command.call_id for share in taken for record in share]
    assert all(len(share) <= 20 for share in taken)
    assert len(ids) == len(set(ids))
    rest = await records(engine).take_expired(50)
    assert len(ids) + len(rest) == 50


async def test_a_renewed_lease_does_not_expire(engine: AsyncEngine) -> None:
    kept, lost = accepted(command()), accepted(command())
    store = records(engine)
    await store.claim([kept, lost])
    await expire(engine)
    await store.renew([kept.command.call_id])
    [taken] = await records(engine, owner="b").take_expired(10)
    assert taken.call == lost
    # A lease that went to another is not won back by renewing it.
    await store.renew([lost.command.call_id])
    assert await store.finish(lost.command.call_id, b"x") is None


async def test_a_released_call_is_free_at_once(engine: AsyncEngine) -> None:
    call = accepted(command())
    store = records(engine)
    await store.claim([call])
    await store.release([call.command.call_id])
    assert len(await records(engine, owner="b").take_expired(10)) == 1


async def test_a_result_that_was_not_sent_is_found_again(engine: AsyncEngine) -> None:
    call = accepted(command())
    store = records(engine)
    await store.claim([call])
    await store.finish(call.command.call_id, b"result")
    await expire(engine)
    [taken] = await records(engine, owner="b").take_expired(10)
    assert taken.result == b"result"
    await store.mark_answered([call.command.call_id])
    await expire(engine)
    assert await store.take_expired(10) == []


async def test_only_old_answered_calls_are_deleted_and_never_too_many(engine: AsyncEngine) -> None:
    store = records(engine)
    batch = [accepted(command()) for _ in range(12)]
    ids = [call.command.call_id for call in batch]
    await store.claim(batch)
    for call_id in ids[:11]:
        await store.finish(call_id, b"result")
    await store.mark_answered(ids[:10])
    assert await store.purge(older_than_seconds=3600, limit=100) == 0
    assert await store.purge(older_than_seconds=0, limit=7) == 7
    assert await store.purge(older_than_seconds=0, limit=7) == 3
    assert await states(engine) == {ids[10]: "finished", ids[11]: "running"}


async def test_the_migration_makes_what_the_code_expects_and_goes_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        made = await connection.run_sync(
            lambda sync: inspect(sync).get_columns("calls", schema="mcp_broker")
        )
    expected = {(c.name, c.nullable) for c in calls.columns}
    assert {(column["name"], column["nullable"]) for column in made} == expected
    await migrate(engine, service="mcp_broker", target="base")
    await migrate(engine, service="mcp_broker")
