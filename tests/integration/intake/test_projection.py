"""The projection on the real PostgreSQL: the same view whatever the order and the repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.event import Contract, Envelope
from contracts.principal import Principal
from contracts.responses import (
    ResponseDeletedV1,
    ResponseFinishedV1,
    ResponseStartedV1,
    RunResponseV1,
    TerminalStatus,
)
from services.intake.conversations.turns_store import TurnStore
from services.intake.domain import StoredResponse
from services.intake.errors import ApiError
from services.intake.items.history import Reader
from services.intake.store import ResponseStore
from services.intake.subscribers import Projection
from services.kit.batches import Received
from services.kit.blobs.disk import DiskBlobs
from services.kit.claimcheck import check_in
from services.kit.clock import SystemClock
from services.kit.database import refuses_values
from services.kit.ids import new_id

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROJECT = "proj_a"
OWNER = Principal(project=PROJECT, key_id="key_a", user="ada", chat="chat_1")


class View:
    """The projection and what can be read of it."""

    def __init__(self, engine: AsyncEngine, blobs: DiskBlobs) -> None:
        self.store = ResponseStore(engine)
        self.blobs = blobs
        turns = TurnStore(engine, reserved_seconds=60, run_seconds=60, max_bytes=1 << 20)
        self._projection = Projection(self.store, turns, blobs, SystemClock())

    async def learn(self, *facts: Contract) -> None:
        """Project the facts as one batch."""
        await self._projection.on_messages([received(fact) for fact in facts])

    async def read(self, response_id: str) -> StoredResponse | None:
        return await self.store.get(response_id, project=PROJECT)


@pytest.fixture
def view(engine: AsyncEngine, blobs: DiskBlobs) -> View:
    return View(engine, blobs)


def received(fact: Contract) -> Received:
    envelope = Envelope.of(fact, event_id="e", source="/test", subject="s", time=NOW)
    return Received(envelope, "test", 0, 0)


def accepted(response_id: str, **changes: Any) -> RunResponseV1:
    fields: dict[str, Any] = {
        "response_id": response_id,
        "principal": OWNER,
        "model": "gpt-5.1",
        "accepted_at": NOW,
        "events_partition": 3,
        "stream": True,
        "request": {"model": "gpt-5.1", "input": f"hello \0 {response_id}"},
    }
    return RunResponseV1(**{**fields, **changes})


def finished(
    response_id: str, *, status: TerminalStatus = "completed", **changes: Any
) -> ResponseFinishedV1:
    fields: dict[str, Any] = {
        "response_id": response_id,
        "attempt": 1,
        "status": status,
        "principal": OWNER,
        "model": "gpt-5.1-2026",
        "provider": "a",
        "accepted_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "events_partition": 3,
        "last_sequence_number": 9,
        "response": {"id": response_id, "status": status, "output": [{"type": "message"}]},
    }
    return ResponseFinishedV1(**{**fields, **changes})


def started(response_id: str) -> ResponseStartedV1:
    return ResponseStartedV1(response_id=response_id, attempt=1, principal=OWNER)


def deleted(response_id: str) -> ResponseDeletedV1:
    return ResponseDeletedV1(response_id=response_id, principal=OWNER)


KINDS: dict[str, Callable[[str], Contract]] = {
    "accepted": accepted,
    "started": started,
    "finished": finished,
    "deleted": deleted,
}


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[tuple[str, int]]]:
    """Draw batches of (kind, response) in which each response is accepted and finished."""
    facts = [(kind, which) for kind in ("accepted", "finished") for which in (0, 1)]
    extra = st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 1))
    facts += draw(st.lists(extra, max_size=8))
    shuffled = draw(st.permutations(facts))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled) - 1), max_size=4)))
    places = [0, *cuts, len(shuffled)]
    return [shuffled[a:b] for a, b in pairwise(places)]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deliveries())
async def test_any_order_and_any_repeats_give_the_same_view(
    view: View, batches: list[list[tuple[str, int]]]
) -> None:
    ids = [f"resp_{uuid4().hex}" for _ in range(2)]
    for batch in batches:
        facts = [KINDS[kind](ids[which]) for kind, which in batch]
        await view.learn(*facts)
    told = {fact for batch in batches for fact in batch}
    for which, response_id in enumerate(ids):
        row = await view.read(response_id)
        assert row is not None
        gone = ("deleted", which) in told
        assert row.deleted == gone
        if gone:
            assert (row.request, row.response) == (None, None)
            continue
        assert row.status == "completed"
        assert (row.stream, row.background, row.events_partition) == (True, False, 3)
        assert row.last_sequence_number == 9
        assert orjson.loads(row.request or "")["input"] == f"hello \0 {response_id}"
        assert orjson.loads(row.response or "")["id"] == response_id


async def test_a_background_response_is_queued_then_in_progress_then_finished(view: View) -> None:
    async def status() -> str:
        row = await view.read("r")
        assert row is not None
        return row.status

    await view.learn(accepted("r", background=True))
    assert await status() == "queued"
    await view.learn(started("r"))
    assert await status() == "in_progress"
    await view.learn(accepted("r", background=True))
    assert await status() == "in_progress"
    await view.learn(finished("r", status="incomplete"))
    await view.learn(started("r"))
    assert await status() == "incomplete"


@pytest.mark.parametrize("together", [True, False])
async def test_the_first_terminal_state_stays(view: View, together: bool) -> None:
    first, second = finished("r"), finished("r", status="failed", attempt=2)
    for batch in [[first, second]] if together else [[first], [second]]:
        await view.learn(*batch)
    row = await view.read("r")
    assert row is not None
    assert row.status == "completed"
    assert orjson.loads(row.response or "")["status"] == "completed"


async def test_a_cancelled_response_is_not_completed_later(view: View) -> None:
    await view.learn(accepted("r", background=True))
    await view.store.cancelled("r")
    await view.learn(finished("r"))
    row = await view.read("r")
    assert row is not None
    assert (row.status, row.response) == ("cancelled", None)
    await view.learn(finished("r", status="cancelled"))
    row = await view.read("r")
    assert row is not None
    assert row.response is not None


async def test_what_is_not_to_be_stored_is_not(view: View) -> None:
    await view.learn(accepted("r", store=False), finished("r", store=False), started("r"))
    assert await view.read("r") is None


async def test_another_project_sees_nothing(view: View) -> None:
    await view.learn(accepted("r"), finished("r"))
    mark = await view.store.get("r", project="proj_b")
    assert mark is not None
    assert (mark.deleted, mark.request, mark.response) == (True, None, None)
    assert await view.store.chain("r", project="proj_b", most=10) == []


async def test_another_project_is_told_at_once_and_does_not_wait_for_the_projection(
    view: View,
) -> None:
    young = new_id("resp")
    await view.learn(accepted(young), finished(young))
    reader = Reader(view.store, SystemClock(), wait_seconds=60)
    async with asyncio.timeout(10):
        assert await reader.get(young, project="proj_b") is None
        with pytest.raises(ApiError) as caught:
            await reader.finished_chain(young, project="proj_b", most=10)
    assert caught.value.code == "previous_response_not_found"


async def test_large_payloads_are_read_from_where_they_are(view: View) -> None:
    big = orjson.dumps({"id": "r", "output": ["x" * 600_000]})
    request = orjson.dumps({"request": {"input": "y" * 600_000}, "history": []})
    claims = [
        await check_in(view.blobs, key=key, payload=payload)
        for key, payload in (("r-request", request), ("r-response", big))
    ]
    await view.learn(
        accepted("r", request=None, payload=claims[0]),
        finished("r", response=None, payload=claims[1]),
    )
    row = await view.read("r")
    assert row is not None
    assert orjson.loads(row.response or "") == orjson.loads(big)
    assert len(orjson.loads(row.request or "")["input"]) == 600_000


async def test_a_value_the_database_can_not_hold_is_known_as_such(view: View) -> None:
    with pytest.raises(DBAPIError) as caught:
        await view.learn(accepted("r", model="a\0b"))
    assert refuses_values(caught.value)


async def chain(view: View, response_id: str, *, most: int = 10) -> list[str]:
    return [
        row.response_id for row in await view.store.chain(response_id, project=PROJECT, most=most)
    ]


async def link(view: View, *pairs: tuple[str, str | None]) -> None:
    for response_id, previous in pairs:
        await view.learn(
            accepted(response_id, previous_response_id=previous), finished(response_id)
        )


async def test_a_chain_is_told_from_its_beginning_along_its_branch(view: View) -> None:
    await link(view, ("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "d"))
    assert await chain(view, "c") == ["a", "b", "c"]
    assert await chain(view, "e") == ["a", "d", "e"]
    assert await chain(view, "a") == ["a"]
    assert await chain(view, "none") == []


async def test_a_response_that_was_deleted_leaves_its_place_in_the_chain(view: View) -> None:
    await link(view, ("a", None), ("b", "a"), ("c", "b"))
    await view.learn(deleted("b"))
    rows = await view.store.chain("c", project=PROJECT, most=10)
    assert [(row.response_id, row.request is None) for row in rows] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert await chain(view, "b") == []


async def test_a_chain_that_is_too_long_is_cut_where_that_can_be_seen(view: View) -> None:
    await link(view, ("a", None), ("b", "a"), ("c", "b"), ("d", "c"))
    assert await chain(view, "d", most=3) == ["a", "b", "c", "d"]
    assert await chain(view, "d", most=2) == ["b", "c", "d"]


async def half_known(view: View, known: str) -> tuple[str, str]:
    """Two responses of a chain, of the first of which only so much is projected."""
    before, after = new_id("resp"), new_id("resp")
    if known == "the beginning":
        await view.learn(accepted(before))
    if known == "the end":
        await view.learn(finished(before))
    await link(view, (after, before))
    return before, after


@pytest.mark.parametrize("known", ["nothing", "the beginning", "the end"])
async def test_a_chain_waits_for_what_came_before_and_is_projected_later(
    view: View, known: str
) -> None:
    before, after = await half_known(view, known)
    reader = Reader(view.store, SystemClock(), wait_seconds=60)
    asked = asyncio.create_task(reader.finished_chain(after, project=PROJECT, most=10))
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.1)
        await view.learn(accepted(before), finished(before))
        assert [row.response_id for row in await asked] == [before, after]


class Behind:
    """A projection that is as far as the test says."""

    def __init__(self, *, has_all: bool) -> None:
        self.has_all = has_all

    async def has_read(self, before_ms: int) -> bool:
        return self.has_all


def impatient(view: View, *, has_all: bool) -> Reader:
    return Reader(view.store, SystemClock(), wait_seconds=0.05, progress=Behind(has_all=has_all))


@pytest.mark.parametrize("known", ["nothing", "the beginning", "the end"])
async def test_half_a_chain_is_refused_while_the_projection_is_behind(
    view: View, known: str
) -> None:
    _, after = await half_known(view, known)
    with pytest.raises(ApiError) as caught:
        await impatient(view, has_all=False).finished_chain(after, project=PROJECT, most=10)
    assert (caught.value.status, caught.value.retry_after_seconds) == (503, 2)
    # Nothing more will come of it then.
    rows = await impatient(view, has_all=True).finished_chain(after, project=PROJECT, most=10)
    assert rows[-1].response_id == after


async def test_a_young_response_is_unfinished_only_when_all_is_projected(view: View) -> None:
    young = new_id("resp")
    await view.learn(accepted(young))
    for has_all, status in ((False, 503), (True, 400)):
        with pytest.raises(ApiError) as caught:
            await impatient(view, has_all=has_all).finished_chain(young, project=PROJECT, most=10)
        assert caught.value.status == status


async def test_a_young_response_is_unknown_only_when_all_is_projected(view: View) -> None:
    young = new_id("resp")
    behind, whole = (impatient(view, has_all=has_all) for has_all in (False, True))
    with pytest.raises(ApiError) as caught:
        await behind.get(young, project=PROJECT)
    assert caught.value.status == 503
    with pytest.raises(ApiError) as caught:
        await behind.finished_chain(young, project=PROJECT, most=10)
    assert caught.value.status == 503
    assert await whole.get(young, project=PROJECT) is None
    assert await behind.get("resp_of_old", project=PROJECT) is None


async def test_what_comes_while_the_brokers_are_asked_is_found(view: View) -> None:
    young, after = new_id("resp"), new_id("resp")

    class Bringing(Behind):
        async def has_read(self, before_ms: int) -> bool:
            await link(view, (young, None), (after, young))
            return True

    reader = Reader(view.store, SystemClock(), wait_seconds=0.05, progress=Bringing(has_all=True))
    row = await reader.get(young, project=PROJECT)
    assert row is not None
    assert row.response_id == young


async def test_a_response_of_a_long_outage_is_not_said_to_be_unknown(view: View) -> None:
    clock = SystemClock()
    made_ms = int(clock.now().timestamp() * 1000) - 3_600_000
    old = f"resp_{made_ms:012x}{new_id('resp')[-20:]}"
    asked: list[int] = []

    class Noting(Behind):
        async def has_read(self, before_ms: int) -> bool:
            asked.append(before_ms)
            return self.has_all

    reader = Reader(view.store, clock, wait_seconds=60, progress=Noting(has_all=False))
    with pytest.raises(ApiError) as caught:
        await reader.get(old, project=PROJECT)
    assert caught.value.status == 503
    # What was written long after it can't tell of it.
    assert asked == [made_ms + 60_000]


@pytest.mark.parametrize("mode", ["json", "stream", "told stream", "background"])
async def test_a_turn_after_one_that_was_told_but_has_no_fact_yet_is_told_to_come_again(
    view: View, mode: str
) -> None:
    before = new_id("resp")
    await view.learn(accepted(before, stream="stream" in mode, background=mode == "background"))
    reader = impatient(view, has_all=True)
    if mode == "told stream":
        reader.note_finished(before)
    with pytest.raises(ApiError) as caught:
        await reader.finished_chain(before, project=PROJECT, most=10)
    expected = 503 if mode in ("json", "told stream") else 400
    assert caught.value.status == expected


@pytest.mark.parametrize(("number", "streams"), [(9, True), (None, False)])
async def test_a_stream_whose_end_comes_first_is_known_by_its_numbers(
    view: View, number: int | None, streams: bool
) -> None:
    response_id = new_id("resp")
    await view.learn(finished(response_id, last_sequence_number=number))
    row = await view.read(response_id)
    assert row is not None
    assert row.stream is streams
