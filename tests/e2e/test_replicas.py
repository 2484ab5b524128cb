"""Two intakes and two workers: whatever begins at one goes on at the other, event by event."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest
from aiohttp import ClientError, ClientSession

from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import Replica, text_of, up
from tests.e2e.sse import Event, numbers, resuming, streaming
from tests.e2e.test_crashes import held
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
Both = tuple[Replica, Replica]
READERS = 50
GONE = (ClientError, ConnectionError)


def id_of(told: list[Event]) -> str:
    return str(told[0]["response"]["id"])


def whole(told: list[Event], last: str) -> None:
    """Every event once, by its number, up to the end of the text."""
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert text_of(told[-1]["response"]).endswith(last)


def is_held(upstream: UpstreamProcess, key: str) -> bool:
    return held(upstream, key) == 1


async def resumed(http: ClientSession, response_id: str, after: int | None = None) -> list[Event]:
    async with resuming(http, response_id, after=after) as reader:
        return await reader.rest()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_stream_is_followed_at_one_and_goes_on_there_when_the_other_is_killed(
    replicas: Both, upstream: UpstreamProcess, mark: str, order: tuple[int, int]
) -> None:
    first, second = replicas[order[0]], replicas[order[1]]
    text = f"tokens: 40 ; fault:hold@20#{mark}"
    async with streaming(first.http, MODEL, text) as begun:
        await begun.until(8)
        response_id = id_of(begun.told)
        async with resuming(second.http, response_id) as beside:
            await beside.until(15)
            first.kill()
            with pytest.raises(GONE):
                await begun.rest()
            seen = begun.told
            after = seen[-1]["sequence_number"]
            async with resuming(second.http, response_id, after=after) as again:
                upstream.release(mark)
                seen += await again.rest()
            whole(seen, "w38 w39")
            assert await beside.rest() == seen
    await first.again()
    # After its end and after the restart, at either, from any event on.
    for one in replicas:
        for start in (None, 0, 20, len(seen) - 2, len(seen) - 1):
            assert (
                await resumed(one.http, response_id, start)
                == seen[(-1 if start is None else start) + 1 :]
            )
    assert len(upstream.requests(mark)) == 1


async def test_a_reader_that_moves_between_replicas_again_and_again_misses_nothing(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    async with streaming(replicas[0].http, MODEL, "tokens: 120 ; delay: 0.01") as begun:
        await begun.until(3)
        seen = list(begun.told)
        turn = 1
        while seen[-1]["type"] != "response.completed":
            after = seen[-1]["sequence_number"]
            async with resuming(replicas[turn % 2].http, id_of(seen), after=after) as reader:
                await reader.until_some(after + 10)
                seen += reader.told
            turn += 1
        assert turn > 3
        whole(seen, "w119")
        assert await begun.rest() == seen


async def test_fifty_readers_over_both_replicas_get_the_same_stream(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"tokens: 60 ; delay: 0.005 ; fault:hold@30#{mark}"
    async with streaming(replicas[0].http, MODEL, text) as begun:
        await begun.until(10)
        response_id = id_of(begun.told)
        async with AsyncExitStack() as readers:
            reading = []
            for number in range(READERS):
                http = replicas[number % 2].http
                after = None if number % 5 == 0 else number % 20
                reader = await readers.enter_async_context(resuming(http, response_id, after=after))
                reading.append((after, reader))
            upstream.release(mark)
            told = await begun.rest()
            whole(told, "w59")
            rests = await asyncio.gather(*(reader.rest() for _, reader in reading))
    for (after, _), rest in zip(reading, rests, strict=True):
        assert rest == told[(-1 if after is None else after) + 1 :]
    assert len(upstream.requests(mark)) == 1


async def test_readers_at_both_replicas_see_the_same_end_when_the_worker_is_killed(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    stack = first.stack
    # Before a word is told another worker begins anew; after that the response fails as it is.
    for hold, end in ((2, "response.completed"), (20, "response.failed")):
        key = f"{mark}-{hold}"
        async with (
            streaming(first.http, MODEL, f"tokens: 30 ; fault:hold@{hold}#{key}") as begun,
            AsyncExitStack() as readers,
        ):
            await begun.until(hold - 2)
            beside = await readers.enter_async_context(resuming(second.http, id_of(begun.told)))
            await until(partial(is_held, upstream, key), "the provider holds the stream")
            workers = {name: stack.kill(name) for name in ("worker", "worker-2")}
            for name, killed in workers.items():
                await stack.ready_again(name, after=killed)
            upstream.release(key)
            told = await begun.rest()
            assert numbers(told) == list(range(len(told)))
            assert told[-1]["type"] == end
            assert await beside.rest() == told
        for one in replicas:
            assert await resumed(one.http, id_of(told), 3) == told[4:]


async def test_one_of_two_workers_dies_and_the_other_answers(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    stack = replicas[0].stack
    asked = [
        asyncio.create_task(
            replicas[n % 2].client.responses.create(
                model=MODEL, input=f"say: answer {n} ; fault:hold#{mark}"
            )
        )
        for n in range(10)
    ]
    await until(lambda: held(upstream, mark) == len(asked), "the provider has all requests")
    stack.kill("worker")
    upstream.release(mark)
    answers = await asyncio.gather(*asked)
    assert [answer.output_text for answer in answers] == [f"answer {n}" for n in range(10)]
    await up(stack, "worker")


async def test_what_one_replica_answered_the_other_knows_at_once(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    first, second = replicas
    for _ in range(5):
        one = await first.client.responses.create(model=MODEL, input="say: one")
        assert await second.client.responses.retrieve(one.id) == one
        two = await second.client.responses.create(
            model=MODEL, input="script:recall", previous_response_id=one.id
        )
        assert "one" in two.output_text
        three = await first.client.responses.create(
            model=MODEL, input="script:recall", previous_response_id=two.id
        )
        assert three.output_text.count("|") > two.output_text.count("|")


async def test_a_conversation_goes_on_at_the_other_replica_at_once(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    first, second = replicas
    conversation = await first.client.conversations.create()
    for number in range(6):
        asked, read = (first, second) if number % 2 else (second, first)
        response = await asked.client.responses.create(
            model=MODEL, input=f"say: turn {number}", conversation=conversation.id
        )
        last = await read.client.responses.create(
            model=MODEL, input="script:recall", conversation=conversation.id
        )
        assert f"turn {number}" in last.output_text, response.id


async def test_an_item_of_a_conversation_is_listed_at_the_other_replica_within_a_bound(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    first, second = replicas
    conversation = await first.client.conversations.create()
    await first.client.responses.create(model=MODEL, input="say: a", conversation=conversation.id)

    async def listed() -> bool:
        page = await second.client.conversations.items.list(conversation.id)
        return len(page.data) == 2

    await found(listed, "the other replica lists both items", bound_s=5)


async def test_what_is_deleted_at_one_replica_is_not_found_at_the_other(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    first, second = replicas
    for _ in range(5):
        created = await first.client.responses.create(model=MODEL, input="say: gone")
        await first.client.responses.delete(created.id)
        for path in ("", "/input_items", "?stream=true"):
            async with second.http.get(f"/v1/responses/{created.id}{path}") as answer:
                assert answer.status == 404
        body = {"model": MODEL, "input": "hi", "previous_response_id": created.id}
        async with second.http.post("/v1/responses", json=body) as answer:
            assert answer.status == 400


async def test_a_background_response_is_cancelled_at_the_other_replica(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    created = await first.client.responses.create(
        model=MODEL, input=f"tokens: 9 ; fault:hold#{mark}", background=True
    )
    await until(lambda: held(upstream, mark) == 1, "the provider has the request")
    cancelled = await second.client.responses.cancel(created.id)
    assert cancelled.status == "cancelled"
    assert (await first.client.responses.retrieve(created.id)).status == "cancelled"
    await until(lambda: held(upstream, mark) == 0, "the call of the provider is closed")
    upstream.release(mark)
    for one in replicas:
        assert (await one.client.responses.retrieve(created.id)).status == "cancelled"


async def test_a_background_stream_outlives_both_intakes(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    text = f"tokens: 30 ; fault:hold@15#{mark}"
    async with streaming(first.http, MODEL, text, background=True) as begun:
        await begun.until(8)
        for one in replicas:
            one.kill()
        with pytest.raises(GONE):
            await begun.rest()
    seen = begun.told
    for one in replicas:
        await one.again()
    upstream.release(mark)
    seen += await resumed(second.http, id_of(seen), seen[-1]["sequence_number"])
    whole(seen, "w28 w29")
    assert await resumed(first.http, id_of(seen)) == seen


async def test_a_stream_whose_events_kafka_dropped_is_told_at_either_replica(
    replicas: Both, upstream: UpstreamProcess
) -> None:
    first, second = replicas
    async with streaming(first.http, MODEL, "tokens: 25") as begun:
        told = await begun.rest()
    response_id = id_of(told)
    await second.drop_events()
    for one in replicas:
        again = await resumed(one.http, response_id)
        assert numbers(again) == list(range(len(told)))
        assert (again[0]["type"], again[-1]) == ("response.created", told[-1])
        assert await resumed(one.http, response_id, len(told) - 2) == told[-1:]
        # A client that saw all but the end misses none of the text.
        deltas = [event for event in again if event["type"].endswith("output_text.done")]
        assert deltas[0]["text"] == text_of(told[-1]["response"])
