"""Idempotency keys on the real database: one holder each, taken over only when it must be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.domain import AcceptedRow
from services.intake.idempotency.service import KeyClaim, KeyHolder
from services.intake.idempotency.store import IdempotencyStore
from services.intake.store import ResponseStore
from services.kit.ids import new_id

AT_ONCE = 24
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def store(
    engine: AsyncEngine, *, keep: float = 3600.0, patience: float = 3600.0
) -> IdempotencyStore:
    return IdempotencyStore(engine, keep_seconds=keep, patience_seconds=patience)


def claim(name: str = "", *, body: bytes = b"body", project: str = "p") -> KeyClaim:
    return KeyClaim(project, name or uuid4().hex, body.ljust(32), new_id("resp"), 3)


async def taken(keys: IdempotencyStore, wanted: KeyClaim) -> KeyHolder:
    for _ in range(AT_ONCE):
        if (holder := await keys.take(wanted)) is not None:
            return holder
    raise AssertionError("nobody has the key, and nobody can take it")


async def projected(engine: AsyncEngine, response_id: str) -> None:
    row = AcceptedRow(
        response_id=response_id,
        project="p",
        key_id="key_a",
        user=None,
        chat=None,
        model="m",
        background=False,
        stream=False,
        events_partition=3,
        previous_response_id=None,
        accepted_at=NOW,
        request="{}",
    )
    await ResponseStore(engine).accepted([row])


async def test_of_many_at_once_one_takes_the_key_and_all_others_see_its_response(
    engine: AsyncEngine,
) -> None:
    keys = store(engine)
    name = uuid4().hex
    claims = [claim(name) for _ in range(AT_ONCE)]
    holders = await asyncio.gather(*(taken(keys, one) for one in claims))
    winners = [one for one, holder in zip(claims, holders, strict=True) if holder.taken]
    assert len(winners) == 1
    assert {holder.response_id for holder in holders} == {winners[0].response_id}
    assert not any(holder.published for holder in holders)


async def test_a_key_whose_command_is_nowhere_is_taken_over_once_with_its_response(
    engine: AsyncEngine,
) -> None:
    first = claim()
    await taken(store(engine), first)
    hasty = store(engine, patience=0.0)
    again = [replace(claim(first.name), events_partition=5) for _ in range(2)]
    holder = await taken(hasty, again[0])
    assert (holder.taken, holder.attempt) == (True, 2)
    assert (holder.response_id, holder.events_partition) == (first.response_id, 3)
    assert not (await taken(store(engine), again[1])).taken
    # Whoever had it before can't give it away any more.
    await hasty.release(first, 1)
    assert (await taken(store(engine), again[1])).response_id == first.response_id
    await hasty.release(first, 2)
    assert (await taken(store(engine), again[1])).taken


@pytest.mark.parametrize("how", ["projected", "noted"])
async def test_a_key_whose_command_is_on_the_log_is_never_taken_over(
    engine: AsyncEngine, how: str
) -> None:
    hasty = store(engine, patience=0.0)
    first = claim()
    await taken(hasty, first)
    if how == "projected":
        await projected(engine, first.response_id)
    else:
        await hasty.published(first)
    holder = await taken(hasty, claim(first.name))
    assert (holder.taken, holder.published) == (False, True)
    assert holder.response_id == first.response_id


async def test_another_body_never_gets_the_key(engine: AsyncEngine) -> None:
    hasty = store(engine, patience=0.0)
    first = claim()
    await taken(hasty, first)
    holder = await taken(hasty, claim(first.name, body=b"other"))
    assert not holder.taken
    assert holder.body_sha256 == first.body_sha256


async def test_projects_do_not_share_keys(engine: AsyncEngine) -> None:
    keys = store(engine)
    assert (await taken(keys, claim("k", project="a"))).taken
    assert (await taken(keys, claim("k", project="b"))).taken
    assert not (await taken(keys, claim("k", project="a"))).taken


async def test_what_a_client_was_told_of_a_failure_stays_with_the_key(engine: AsyncEngine) -> None:
    keys = store(engine)
    first = claim()
    await taken(keys, first)
    await keys.failed(first, status=400, error='{"error": 1}')
    holder = await taken(keys, claim(first.name))
    assert (holder.status, holder.error) == (400, '{"error": 1}')
    # A note about a response that does not have the key any more is none.
    await keys.failed(replace(first, response_id="resp_x"), status=500, error="{}")
    assert (await taken(keys, claim(first.name))).status == 400


async def test_an_old_key_is_anybody_s_and_nothing_of_it_is_left(engine: AsyncEngine) -> None:
    keys = store(engine)
    first = claim()
    await taken(keys, first)
    await keys.published(first)
    await keys.failed(first, status=400, error="{}")
    other = replace(claim(first.name, body=b"other"), events_partition=6)
    holder = await taken(store(engine, keep=0.0), other)
    assert (holder.taken, holder.response_id, holder.events_partition) == (
        True,
        other.response_id,
        6,
    )
    after = await taken(keys, claim(first.name, body=b"other"))
    assert (after.published, after.status, after.error) == (False, None, None)


async def test_old_keys_are_deleted_in_bounded_batches_side_by_side(engine: AsyncEngine) -> None:
    keys = store(engine)
    for _ in range(25):
        await taken(keys, claim())
    assert await keys.forget(most=10) == 0
    old = store(engine, keep=0.0)
    first = await asyncio.gather(*(old.forget(most=10) for _ in range(2)))
    assert sum(first) <= 20
    assert max(first) == 10
    while await old.forget(most=10):
        pass
    async with engine.connect() as connection:
        left = await connection.execute(text("SELECT count(*) FROM intake.idempotency_keys"))
        assert left.scalar_one() == 0


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.sampled_from(["take", "take other", "die", "publish", "refuse", "stale release"]),
        min_size=1,
        max_size=12,
    )
)
async def test_whatever_happens_a_key_has_one_response_until_it_is_given_back(
    engine: AsyncEngine, steps: list[str]
) -> None:
    """`die` lets the patience pass: whoever held the key will not send its command any more."""
    name, patient, hasty = uuid4().hex, store(engine), store(engine, patience=0.0)
    holder: KeyHolder | None = None
    published = False
    for step in steps:
        if step in ("take", "die"):
            asked = claim(name)
            found = await taken(hasty if step == "die" else patient, asked)
            if holder is None:
                assert found.taken
                assert found.response_id == asked.response_id
            else:
                assert found.response_id == holder.response_id
                assert found.taken == (step == "die" and not published)
                assert found.taken or found.published == published
            holder = found if found.taken else holder
        elif step == "take other" and holder is not None:
            other = await taken(hasty, claim(name, body=b"other"))
            assert not other.taken
        elif holder is not None:
            held = replace(claim(name), response_id=holder.response_id)
            if step == "publish":
                await patient.published(held)
                published = True
            elif step == "stale release":
                await patient.release(held, holder.attempt - 1)
            elif step == "refuse" and not published:
                await patient.release(held, holder.attempt)
                holder = None
