"""The queue on the real PostgreSQL: idempotent, leased, bounded, fair, and forgetful."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.migrate import migrate
from services.webhooks.domain.endpoints import KEPT_ATTEMPTS, Claim
from services.webhooks.domain.events import EVENT_TYPES
from services.webhooks.service import Interest
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from services.webhooks.store.tables import DELIVERIES, ENDPOINTS
from tests.integration.webhooks.parts import (
    LEASE,
    PER_ENDPOINT,
    RULE,
    added,
    ended,
    event,
    history,
)
from tests.unit.webhooks.samples import NOW

SECOND = timedelta(seconds=1)


async def claimed(
    queue: PostgresDeliveries, *, most: int = 100, after: timedelta = timedelta()
) -> list[Claim]:
    return await queue.claim(most, now=NOW + after, lease=LEASE)


async def test_the_migrations_give_the_tables_that_the_store_uses_and_go_down_again(
    engine: AsyncEngine,
) -> None:
    columns = text(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'webhooks' AND table_name <> 'alembic_version'"
    )
    used = {(table.name, column.name) for table in (ENDPOINTS, DELIVERIES) for column in table.c}
    async with engine.connect() as connection:
        assert {tuple(row) for row in await connection.execute(columns)} == used
    await migrate(engine, service="webhooks", target="base")
    async with engine.connect() as connection:
        assert list(await connection.execute(columns)) == []
    await migrate(engine, service="webhooks")


async def test_events_go_to_the_endpoints_that_want_them(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints, "we_all", responses="all")
    await added(endpoints, "we_failed", event_types=("response.failed",))
    await added(endpoints, "we_off", enabled=False)
    await added(endpoints, "we_other", project="other")
    await added(endpoints, "we_new", created_at=NOW + timedelta(hours=1))
    events = [
        event("resp_1"),
        event("resp_2", type="response.failed"),
        event("resp_3", background=False),
    ]
    assert await queue.accept(events, at=NOW) == 4
    assert set(await history(endpoints, "we_all")) == {"resp_1", "resp_2", "resp_3"}
    assert set(await history(endpoints, "we_failed")) == {"resp_2"}
    for name in ("we_off", "we_other", "we_new"):
        assert await history(endpoints, name) == {}


async def test_what_anybody_wants_to_know_is_known(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    assert await queue.interest() == Interest(any=False, foreground=False)
    await added(endpoints, "we_off", enabled=False, responses="all")
    assert await queue.interest() == Interest(any=False, foreground=False)
    await added(endpoints, "we_1")
    assert await queue.interest() == Interest(any=True, foreground=False)
    await added(endpoints, "we_2", responses="all")
    assert await queue.interest() == Interest(any=True, foreground=True)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(EVENT_TYPES)), max_size=8),
        max_size=6,
    )
)
async def test_facts_in_any_order_and_number_give_one_delivery_for_each_end(
    queue: PostgresDeliveries,
    endpoints: PostgresEndpoints,
    engine: AsyncEngine,
    batches: list[list[tuple[int, str]]],
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE webhooks.endpoints, webhooks.deliveries"))
    await added(endpoints)
    made = 0
    for batch in batches:
        events = [event(f"resp_{number}", type=kind) for number, kind in batch]
        made += await queue.accept(events, at=NOW)
        for claim in await claimed(queue):
            # What was delivered stays so, whatever is told again.
            await queue.record([ended(claim, 200)], rule=RULE)
    wanted = {pair for batch in batches for pair in batch}
    async with engine.connect() as connection:
        rows = list(await connection.execute(DELIVERIES.select()))
    assert {(int(row.response_id[-1]), row.event_type) for row in rows} == wanted
    assert made == len(rows) == len(wanted)


async def test_instances_that_claim_at_once_get_different_deliveries_and_keep_the_bound(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    for number in range(4):
        await added(endpoints, f"we_{number}")
    await queue.accept([event(f"resp_{n}") for n in range(10)], at=NOW)
    batches = await asyncio.gather(*(claimed(queue, most=4) for _ in range(8)))
    batches += [await claimed(queue) for _ in range(4)]
    claims = [claim for batch in batches for claim in batch]
    assert len({claim.delivery_id for claim in claims}) == len(claims) == 4 * PER_ENDPOINT
    assert set(Counter(claim.endpoint.id for claim in claims).values()) == {PER_ENDPOINT}
    assert {claim.attempt for claim in claims} == {1}


async def test_endpoints_take_turns_however_much_one_of_them_has(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints, "we_busy")
    await queue.accept([event(f"resp_{n}") for n in range(50)], at=NOW)
    await added(endpoints, "we_calm", project="calm")
    await queue.accept([event("resp_calm", project="calm")], at=NOW + SECOND)
    first = await claimed(queue, most=2, after=SECOND)
    assert {claim.endpoint.id for claim in first} == {"we_busy", "we_calm"}
    await queue.accept([event("resp_late", project="calm")], at=NOW + 2 * SECOND)
    # Only one place is free: it goes to the one that has waited.
    await queue.record([ended(claim, 200) for claim in first], rule=RULE)
    turns = [(await claimed(queue, most=1, after=n * SECOND))[0] for n in (3, 4)]
    assert {claim.endpoint.id for claim in turns} == {"we_busy", "we_calm"}


async def test_a_lease_that_ended_lets_another_instance_send(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event()], at=NOW)
    [dead] = await claimed(queue)
    assert await claimed(queue, after=LEASE - SECOND) == []
    [again] = await claimed(queue, after=LEASE)
    assert (again.delivery_id, again.attempt) == (dead.delivery_id, 2)

    # The first one was only slow: its failure is no news, its success would be.
    await queue.record([ended(dead, 500, retry_at=NOW)], rule=RULE)
    assert (await history(endpoints))["resp_1"].last_attempts == []
    await queue.record([ended(dead, 200)], rule=RULE)
    assert (await history(endpoints))["resp_1"].state == "delivered"
    await queue.record([ended(again, 500, retry_at=NOW)], rule=RULE)
    assert (await history(endpoints))["resp_1"].state == "delivered"


async def test_a_lease_that_was_given_back_is_due_at_once_and_counts_no_attempt(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event()], at=NOW)
    await queue.release(await claimed(queue), now=NOW)
    assert [claim.attempt for claim in await claimed(queue)] == [1]


async def test_attempts_are_told_and_the_last_ones_kept(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event()], at=NOW)
    calm = replace(RULE, trip=1_000)
    for number in range(KEPT_ATTEMPTS + 3):
        at = NOW + number * SECOND
        [claim] = await claimed(queue, after=number * SECOND)
        await queue.record([ended(claim, 500 + number, at, retry_at=at + SECOND)], rule=calm)
        async with queue._engine.begin() as connection:
            # One failing endpoint is another test's matter.
            await connection.execute(ENDPOINTS.update().values(failures=0, paused_until=None))
    delivery = (await history(endpoints))["resp_1"]
    assert delivery.attempts == KEPT_ATTEMPTS + 3
    assert [one.status_code for one in delivery.last_attempts] == list(range(503, 513))
    assert delivery.due_at == NOW + (KEPT_ATTEMPTS + 3) * SECOND

    [claim] = await claimed(queue, after=60 * SECOND)
    await queue.record([ended(claim, None, NOW + 60 * SECOND)], rule=calm)
    delivery = (await history(endpoints))["resp_1"]
    assert (delivery.state, delivery.due_at) == ("failed", None)
    assert delivery.finished_at == NOW + 60 * SECOND
    assert delivery.last_attempts[-1].error == "no answer in time"


async def test_an_endpoint_that_keeps_failing_is_asked_rarely_until_it_is_back(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event(f"resp_{n}") for n in range(9)], at=NOW)
    claims = await claimed(queue)
    assert len(claims) == PER_ENDPOINT == RULE.trip
    later = NOW + timedelta(hours=1)
    await queue.record([ended(claim, 503, retry_at=later) for claim in claims], rule=RULE)
    found = await endpoints.find("we_1", project="research")
    assert found is not None
    assert found.failures == 3
    assert found.paused_until is not None
    assert await claimed(queue) == []

    [probe] = await claimed(queue, after=11 * SECOND)
    assert await claimed(queue, after=12 * SECOND) == []
    await queue.record([ended(probe, 200, NOW + 12 * SECOND)], rule=RULE)
    assert len(await claimed(queue, after=13 * SECOND)) == PER_ENDPOINT
    found = await endpoints.find("we_1", project="research")
    assert found is not None
    assert (found.failures, found.paused_until) == (0, None)


async def test_an_endpoint_that_is_gone_is_disabled_until_somebody_enables_it(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event("resp_1"), event("resp_2")], at=NOW)
    first, second = await claimed(queue)
    await queue.record([ended(first, 410)], rule=RULE)
    await queue.release([second], now=NOW)
    found = await endpoints.find("we_1", project="research")
    assert found is not None
    assert (found.enabled, found.disabled_reason) == (False, "the endpoint answered 410 Gone")
    assert await claimed(queue, after=SECOND) == []
    assert await queue.accept([event("resp_3")], at=NOW) == 0

    await endpoints.change("we_1", project="research", to=lambda one: replace(one, enabled=True))
    assert [claim.response_id for claim in await claimed(queue, after=SECOND)] == [
        second.response_id
    ]


async def test_what_was_sent_to_an_old_address_says_nothing_about_the_new_one(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event()], at=NOW)
    [claim] = await claimed(queue)
    await endpoints.change(
        "we_1", project="research", to=lambda one: replace(one, url="https://new.example/")
    )
    await queue.record([ended(claim, 410)], rule=RULE)
    found = await endpoints.find("we_1", project="research")
    assert found is not None
    assert (found.enabled, found.failures) == (True, 0)


async def test_old_deliveries_are_forgotten_and_those_nobody_could_try_are_given_up(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    await added(endpoints)
    await queue.accept([event("resp_done"), event("resp_open")], at=NOW)
    claims = {claim.response_id: claim for claim in await claimed(queue)}
    await queue.record([ended(claims["resp_done"], 200)], rule=RULE)
    await queue.release([claims["resp_open"]], now=NOW)

    async def forget(after: timedelta) -> int:
        return await queue.forget(
            now=NOW + after, keep=timedelta(days=14), give_up=timedelta(hours=72)
        )

    assert await forget(timedelta(hours=71)) == 0
    assert await forget(timedelta(hours=73)) == 1
    assert (await history(endpoints))["resp_open"].state == "failed"
    assert await forget(timedelta(days=15)) == 1
    assert set(await history(endpoints)) == {"resp_open"}
    assert await forget(timedelta(days=30)) == 1
    assert await history(endpoints) == {}


async def test_an_endpoint_goes_with_its_deliveries_also_while_facts_come_in(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    for number in range(20):
        name = f"we_{number}"
        await added(endpoints, name)
        await asyncio.gather(
            queue.accept([event(f"resp_{number}")], at=NOW),
            endpoints.remove(name, project="research"),
        )
        assert await history(endpoints, name) == {}
    assert await claimed(queue) == []


async def test_a_project_has_a_bounded_number_of_endpoints(
    endpoints: PostgresEndpoints, engine: AsyncEngine
) -> None:
    made = [await added(endpoints, f"we_{number}") for number in range(2)]
    more = [replace(made[0], id=f"we_more_{number}") for number in range(6)]
    results = await asyncio.gather(*(endpoints.add(one, most=4) for one in more))
    assert sum(results) == 2
    assert len(await endpoints.page(project="research", limit=100, after=None)) == 4


async def test_a_full_batch_for_as_many_endpoints_as_may_be_is_one_batch(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints
) -> None:
    for number in range(20):
        await added(endpoints, f"we_{number}")
    events = [event(f"resp_{number}") for number in range(500)]
    assert await queue.accept(events, at=NOW) == 10_000
    assert await queue.accept(events, at=NOW) == 0
