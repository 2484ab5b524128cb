"""Conversations on a real database: turns, pages, deletions and other people's keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.errors import ApiError
from services.intake.items.history import Reader
from services.intake.items.inputs import InputItems
from services.intake.items.item import Item
from services.intake.items.listing import ListQuery
from services.intake.store import ResponseStore
from services.kit.blobs.disk import DiskBlobs
from services.kit.clock import SystemClock
from services.kit.ids import new_id
from tests.integration.intake.talks import ASCENDING, Talk, message, talk

NOBODY = "conv_" + "0" * 32


async def refusal(action: object) -> ApiError:
    assert asyncio.iscoroutine(action)
    with pytest.raises(ApiError) as refused:
        await action
    return refused.value


async def spoken(one: Talk, question: str, answer: str, *, store: bool = True) -> str:
    """Let a response speak; return its id."""
    response_id, _ = await one.begin(message(question))
    end = one.end(response_id, message(answer, "assistant"), store=store)
    await one.project(one.command(response_id, store=store), end)
    return response_id


@pytest.mark.parametrize("store", [True, False])
async def test_a_response_sees_all_that_was_said_before(
    engine: AsyncEngine, blobs: DiskBlobs, store: bool
) -> None:
    one = await talk(engine, blobs, message("begin"))
    await spoken(one, "one?", "one!", store=store)
    await spoken(one, "two?", "two!", store=store)
    _, history = await one.begin(message("three?"))
    assert [item["content"] for item in history] == ["begin", "one?", "one!", "two?", "two!"]


async def test_a_response_waits_until_the_one_before_is_projected(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, wait_seconds=10)
    first, _ = await one.begin(message("one?"))
    second = asyncio.create_task(one.begin(message("two?")))
    await one.project(one.command(first))
    await one.project(one.end(first, message("one!", "assistant")))
    _, history = await second
    assert [item["content"] for item in history] == ["one?", "one!"]


async def test_a_list_waits_for_what_its_reader_was_told(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, wait_seconds=10)
    first, _ = await one.begin(message("one?"))
    assert await one.said() == []
    one.told.add(first)
    listing = asyncio.create_task(one.said())
    await one.project(one.command(first))
    await one.project(one.end(first, message("one!", "assistant")))
    assert await listing == ["one?", "one!"]


async def test_a_conversation_stays_locked_while_a_response_runs(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs)
    first, _ = await one.begin(message("one?"))
    await one.project(one.command(first))
    refused = await refusal(one.begin(message("two?")))
    assert (refused.status, refused.code) == (400, "conversation_locked")
    assert await one.said() == []


async def test_of_many_requests_at_once_one_takes_the_turn(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs)
    begun = await asyncio.gather(
        *(one.begin(message(str(n))) for n in range(6)), return_exceptions=True
    )
    assert len([answer for answer in begun if isinstance(answer, tuple)]) == 1
    assert len([answer for answer in begun if isinstance(answer, ApiError)]) == 5


async def test_a_turn_that_was_given_back_leaves_nothing_even_if_it_is_run(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs)
    first, _ = await one.begin(message("one?"))
    await one.turns.abandon(first)
    await one.turns.abandon(first)
    second, _ = await one.begin(message("two?"))
    await one.project(one.command(first), one.end(first, message("one!", "assistant")))
    await one.project(one.command(second), one.end(second, message("two!", "assistant")))
    assert await one.said() == ["two?", "two!"]


async def test_a_turn_whose_command_never_came_does_not_keep_others_out(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, reserved_seconds=0.05, run_seconds=60, wait_seconds=10)
    first, _ = await one.begin(message("lost?"))
    second, _ = await one.begin(message("two?"))
    await one.project(one.command(second))
    one.taker.wait_seconds = 0.1
    assert (await refusal(one.begin(message("three?")))).code == "conversation_locked"
    # It was only late: what it says stands where its turn was.
    await one.project(one.end(second, message("two!", "assistant")))
    await one.project(one.end(first, message("lost!", "assistant")))
    assert await one.said() == ["lost?", "lost!", "two?", "two!"]


async def test_a_failed_response_leaves_the_conversation_as_it_was_and_open(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, message("begin"))
    first, _ = await one.begin(message("one?"))
    await one.project(one.command(first), one.end(first, status="failed"))
    assert await one.said() == ["begin"]
    _, history = await one.begin(message("again?"))
    assert [item["content"] for item in history] == ["begin"]


@pytest.mark.parametrize("deed", ["cancelled", "deleted"])
async def test_a_response_that_is_stopped_before_its_end_says_nothing(
    engine: AsyncEngine, blobs: DiskBlobs, deed: str
) -> None:
    one = await talk(engine, blobs)
    store = ResponseStore(engine)
    first, _ = await one.begin(message("one?"))
    await one.project(one.command(first))
    if deed == "cancelled":
        await store.cancelled(first)
    else:
        await store.deleted([(first, one.key.project, one.key.key_id)])
    # A late completion changes nothing, but the turn is free.
    await one.project(one.end(first, message("one!", "assistant")))
    assert await one.said() == []
    await one.begin(message("two?"))


async def test_what_a_client_sent_twice_is_refused_and_takes_no_turn(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    known = {**message("begin"), "id": "msg_known"}
    one = await talk(engine, blobs, known)
    refused = await refusal(one.begin(known))
    assert (refused.status, refused.param) == (400, "input")
    added = one.conversations.add(one.conversation_id, [known], frozenset(), one.key)
    assert (await refusal(added)).param == "items"
    await one.begin(message("still free?"))


async def test_a_history_above_the_bound_is_refused(engine: AsyncEngine, blobs: DiskBlobs) -> None:
    one = await talk(engine, blobs, message("x" * 500), max_bytes=400)
    refused = await refusal(one.begin(message("one?")))
    assert (refused.status, refused.code) == (400, "history_too_large")


async def test_items_are_added_paged_read_and_deleted(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, *(message(str(n)) for n in range(3)))
    owned = (one.conversation_id, one.key)
    added = await one.conversations.add(
        owned[0], [message("3"), message("4")], frozenset(), owned[1]
    )
    assert [item["content"][0]["text"] for item in added["data"]] == ["3", "4"]
    assert await one.said() == ["0", "1", "2", "3", "4"]

    seen: list[Item] = []
    query = ListQuery(limit=2)
    while True:
        answer = await one.conversations.list(owned[0], query, owned[1])
        seen += answer["data"]
        if not answer["has_more"]:
            break
        query = replace(query, after=answer["last_id"])
    assert [item["content"][0]["text"] for item in seen] == ["4", "3", "2", "1", "0"]

    middle = seen[2]["id"]
    assert await one.conversations.item(owned[0], middle, frozenset(), owned[1]) == seen[2]
    left = await one.conversations.delete_item(owned[0], middle, owned[1])
    assert left["id"] == one.conversation_id
    assert await one.said() == ["0", "1", "3", "4"]
    again = one.conversations.delete_item(owned[0], middle, owned[1])
    assert (await refusal(again)).status == 404
    lost = one.conversations.list(owned[0], ListQuery(after=middle), owned[1])
    assert (await refusal(lost)).param == "after"


async def test_an_item_that_was_deleted_does_not_come_back_with_its_fact(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs)
    first = await spoken(one, "one?", "one!")
    answer = (await one.items())[1]["id"]
    await one.conversations.delete_item(one.conversation_id, answer, one.key)
    await one.project(one.command(first), one.end(first, message("one!", "assistant")))
    assert await one.said() == ["one?"]


async def test_metadata_is_replaced(engine: AsyncEngine, blobs: DiskBlobs) -> None:
    one = await talk(engine, blobs)
    made = await one.conversations.get(one.conversation_id, one.key)
    changed = await one.conversations.update(one.conversation_id, {"a": "b\0"}, one.key)
    assert changed == {**made, "metadata": {"a": "b\0"}}
    assert await one.conversations.get(one.conversation_id, one.key) == changed


async def test_a_deleted_conversation_is_gone_with_all_its_content(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, message("begin"))
    await spoken(one, "one?", "one!")
    running, _ = await one.begin(message("two?"))
    deleted = await one.conversations.delete(one.conversation_id, one.key)
    assert deleted == {
        "id": one.conversation_id, "object": "conversation.deleted", "deleted": True
    }  # fmt: skip
    # A response that still ran ends without a conversation to add to.
    await one.project(one.command(running), one.end(running, message("two!", "assistant")))
    async with engine.connect() as connection:
        for table in ("conversations", "conversation_items", "conversation_turns"):
            count = await connection.execute(
                text(f"SELECT count(*) FROM intake.{table} WHERE conversation_id = :id"),
                {"id": one.conversation_id},
            )
            assert count.scalar_one() == 0
    assert (await refusal(one.begin(message("three?")))).status == 404


async def test_a_deletion_and_the_end_of_a_response_can_meet(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    for _ in range(10):
        one = await talk(engine, blobs)
        response_id, _ = await one.begin(message("one?"))
        end = one.end(response_id, message("one!", "assistant"))
        await asyncio.gather(
            one.project(one.command(response_id), end),
            one.conversations.delete(one.conversation_id, one.key),
        )
        assert (await refusal(one.items())).status == 404


async def test_another_project_finds_nothing_of_a_conversation(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, message("secret"))
    known = (await one.items())[0]["id"]
    other = replace(one.key, project="another")
    for conversation_id, key in ((one.conversation_id, other), (NOBODY, one.key)):
        does = one.conversations
        taken = {"conversation": conversation_id, "input": "x"}
        for action in (
            does.get(conversation_id, key),
            does.update(conversation_id, {}, key),
            does.add(conversation_id, [message("x")], frozenset(), key),
            does.list(conversation_id, ASCENDING, key),
            does.item(conversation_id, known, frozenset(), key),
            does.delete_item(conversation_id, known, key),
            does.delete(conversation_id, key),
            one.taker.begin(taken, new_id("resp"), key),
        ):
            assert (await refusal(action)).status == 404
    assert await one.said() == ["secret"]


async def test_input_items_are_the_conversation_before_a_response_and_its_own_input(
    engine: AsyncEngine, blobs: DiskBlobs
) -> None:
    one = await talk(engine, blobs, message("begin"))
    clock = SystemClock()
    given = InputItems(
        Reader(ResponseStore(engine), clock, wait_seconds=0.1), one.taker, max_chain=10
    )
    first, _ = await one.begin(message("one?"))
    command = one.command(first).model_copy(
        update={"request": {"conversation": one.conversation_id, "input": [message("one?")]}}
    )
    await one.project(one.end(first, message("one!", "assistant")))
    waiting = asyncio.create_task(given.list(first, ASCENDING, one.key))
    await one.project(command)
    answer = await waiting
    assert [item["content"][0]["text"] for item in answer["data"]] == ["begin", "one?"]
    # The same items have the same ids in the conversation.
    assert answer["data"] == (await one.items())[:2]
    stranger = replace(one.key, project="another")
    assert (await refusal(given.list(first, ASCENDING, stranger))).status == 404
