"""Background responses that a provider works on by itself: asked for once, whatever dies."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.e2e.parts import DETACHED
from tests.e2e.sse import Event, numbers, resuming, streaming
from tests.e2e.stack import Stack
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

WORDS = " ".join(f"w{n}" for n in range(40))


def runs(upstream: UpstreamProcess, mark: str) -> list[Any]:
    """The requests that began a response with that mark."""
    return [request for request in upstream.requests(mark) if request["run"]]


def looks(upstream: UpstreamProcess, run: Any) -> list[Any]:
    """The requests about the response that `run` began."""
    return [r for r in upstream.requests(run["response_id"]) if not r["run"]]


async def begun(client: AsyncOpenAI, text: str) -> str:
    return (await client.responses.create(model=DETACHED, input=text, background=True)).id


async def ended(client: AsyncOpenAI, response_id: str) -> Any:
    async def is_ended() -> Any:
        now = await client.responses.retrieve(response_id)
        return None if now.status in ("queued", "in_progress") else now

    return await found(is_ended, f"{response_id} has ended")


async def test_a_worker_that_is_killed_leaves_its_responses_to_be_followed_by_another(
    stack: Stack, http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"{mark} ; tokens: 40 ; fault:hold@20#{mark}"
    polled = await begun(client, text)

    async def streamed() -> list[Event]:
        async with streaming(http, DETACHED, text, background=True) as stream:
            return await stream.rest()

    telling = asyncio.create_task(streamed())
    await until(
        lambda: (
            len(runs(upstream, mark)) == 2
            and any(run["events_sent"] == 20 for run in runs(upstream, mark))
        ),
        "both are under way",
    )
    await until(
        lambda: all(looks(upstream, r) for r in runs(upstream, mark) if not r["stream"]),
        "the one without a stream is asked after",
    )
    killed = stack.kill("worker")
    await stack.ready_again("worker", after=killed)
    by_stream = next(run for run in runs(upstream, mark) if run["stream"])
    await until(lambda: looks(upstream, by_stream), "the stream is followed again")
    upstream.release(mark)

    told = await telling
    assert numbers(told) == list(range(len(told)))
    final = told[-1]["response"]
    assert (told[-1]["type"], final["status"]) == ("response.completed", "completed")
    said = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
    assert said == final["output"][0]["content"][0]["text"] == WORDS
    answer = await ended(client, polled)
    assert (answer.status, answer.output_text) == ("completed", WORDS)
    assert {final["usage"]["output_tokens"], answer.usage.output_tokens} == {40}
    # Asked twice in all, once for each, under a name by which a second time would be known.
    assert len(runs(upstream, mark)) == 2
    keys = {run["headers"]["idempotency-key"] for run in runs(upstream, mark)}
    assert keys == {polled, final["id"]}
    [again] = looks(upstream, by_stream)
    assert again["query"] == {"stream": "true", "starting_after": "19"}


async def test_a_connection_that_breaks_is_made_again_where_it_broke(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"{mark} ; tokens: 40 ; fault:cut@12x3#{mark}"
    async with streaming(http, DETACHED, text, background=True) as stream:
        told = await stream.rest()
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    said = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
    assert said == WORDS
    [run] = runs(upstream, mark)
    asked = [one["query"]["starting_after"] for one in looks(upstream, run) if one["query"]]
    asked_after = [int(number) for number in asked]
    # Never twice from one place; a connection that is reset may take with it what was not yet read.
    assert len(asked_after) == len(set(asked_after)) == 3
    assert asked_after == sorted(asked_after)
    assert all(number <= 12 * n - 1 for n, number in enumerate(asked_after, start=1))


async def test_a_response_that_is_cancelled_is_cancelled_at_its_provider(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    response_id = await begun(client, f"{mark} ; tokens: 40 ; fault:hold@20#{mark}")
    await until(lambda: runs(upstream, mark), "it is under way")
    [run] = runs(upstream, mark)
    await until(lambda: looks(upstream, run), "it is asked after")
    await client.responses.cancel(response_id)
    answer = await ended(client, response_id)
    assert answer.status == "cancelled"

    def paths() -> list[str]:
        return [one["path"] for one in looks(upstream, run)]

    await until(lambda: any(path.endswith("/cancel") for path in paths()), "it is passed on")


async def test_what_the_provider_forgot_is_asked_for_again_as_long_as_nothing_was_told(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    response_id = await begun(client, f"{mark} ; tokens: 5 ; fault:hold@2x1#{mark}")
    await until(lambda: runs(upstream, mark), "it is under way")
    await _forget(upstream, runs(upstream, mark)[0]["response_id"])
    answer = await ended(client, response_id)
    assert (answer.status, answer.output_text) == ("completed", "w0 w1 w2 w3 w4")
    assert len(runs(upstream, mark)) == 2


async def test_a_stream_that_told_something_fails_when_the_provider_forgot_the_rest(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"{mark} ; tokens: 40 ; fault:stall@15,1 ; fault:cut@20"
    async with streaming(http, DETACHED, text, background=True) as stream:
        await stream.until(14)
        [run] = runs(upstream, mark)
        await _forget(upstream, run["response_id"])
        told = await stream.rest()
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["output"][0]["content"][0]["text"].startswith("w0 w1 w2")
    assert len(runs(upstream, mark)) == 1


async def test_it_can_be_read_later_like_any_other(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with streaming(http, DETACHED, f"{mark} ; say: hello", background=True) as stream:
        told = await stream.rest()
    response_id = told[0]["response"]["id"]
    async with resuming(http, response_id, after=2) as again:
        assert await again.rest() == told[3:]
    assert (await client.responses.retrieve(response_id)).output_text == "hello"


async def _forget(upstream: UpstreamProcess, response_id: str) -> None:
    async with (
        ClientSession() as anybody,
        anybody.delete(f"{upstream.base_url}/responses/{response_id}") as answer,
    ):
        assert answer.status == 200
