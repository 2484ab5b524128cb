"""Rolling deploys: replicas are stopped one after the other, and no client loses anything."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, TCPConnector

from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import INTAKES, WORKERS, Replica, text_of
from tests.e2e.sse import DONE, Event, event_of, numbers, resuming, streaming
from tests.e2e.stack import Stack
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
Both = tuple[Replica, Replica]
TOKENS = 60
CLIENTS = 3
GONE = (ClientError, ConnectionError)
HANDED_OVER_S = 1.5
"""A handover takes up to a second until an idle worker looks, and what a busy machine adds."""


def terminate(stack: Stack, name: str) -> int:
    """Ask a part to stop, as a deploy does, and return the id that its process had."""
    pid = stack.pid(name)
    os.kill(pid, signal.SIGTERM)
    return pid


async def worker_of(stack: Stack, metric: str) -> str:
    """The worker that runs something, by its own metrics."""

    async def busy() -> str | None:
        for name in WORKERS:
            url = f"http://127.0.0.1:{stack.part(name).port}/metrics"
            async with ClientSession() as anybody, anybody.get(url) as answer:
                if f"\n{metric} 1.0" in await answer.text():
                    return name
        return None

    return await found(busy, f"a worker has {metric} of 1")


@dataclass
class Load:
    """Clients that ask until they are told to stop; each request has a text of its own."""

    replicas: Both
    mark: str
    going: bool = True
    asked: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    resumed: int = 0

    def text(self, what: str) -> str:
        text = f"{self.mark}-{len(self.asked):04}\n{what}"
        self.asked.append(text)
        return text

    async def post(self, http: ClientSession, body: dict[str, Any]) -> tuple[int, Any]:
        """Ask one replica, the other when that one is away or says to come again.

        The key lets a request be repeated whose connection broke before its answer.
        """
        headers = {"idempotency-key": _name(body["input"])}
        for turn in range(100):
            url = f"{self.replicas[turn % 2].url}/v1/responses"
            try:
                async with http.post(url, json=body, headers=headers) as answer:
                    if answer.status != 503:
                        return answer.status, await answer.json()
            except GONE:
                pass
            self.refused += 1
            await asyncio.sleep(0.02)
        return 503, None

    async def json(self, http: ClientSession) -> None:
        while self.going:
            text = self.text("tokens: 10 ; delay: 0.05")
            status, answer = await self.post(http, {"model": MODEL, "input": text})
            if status != 200 or answer["status"] != "completed":
                self.failures.append(f"JSON {status} {answer}")

    async def background(self, http: ClientSession) -> None:
        while self.going:
            body = {"model": MODEL, "input": self.text("say: later ; delay: 0.05")}
            status, answer = await self.post(http, {**body, "background": True})
            if status != 200:
                self.failures.append(f"background {status} {answer}")
                continue
            for turn in range(1_000):
                url = f"{self.replicas[turn % 2].url}/v1/responses/{answer['id']}"
                try:
                    async with http.get(url) as told:
                        state = (await told.json())["status"] if told.status == 200 else ""
                except GONE:
                    state = ""
                if state not in ("", "queued", "in_progress"):
                    break
                await asyncio.sleep(0.05)
            if state != "completed":
                self.failures.append(f"background ended as {state!r}")

    async def stream(self, http: ClientSession, first: int) -> None:
        while self.going:
            text = self.text(f"tokens: {TOKENS} ; delay: 0.05")
            told = await self.told(http, text, first)
            if numbers(told) != list(range(len(told))):
                self.failures.append(f"stream with the numbers {numbers(told)}")
            elif told[-1]["type"] != "response.completed":
                self.failures.append(f"stream that ended with {told[-1]['type']}")
            elif not text_of(told[-1]["response"]).endswith(f"w{TOKENS - 1}"):
                self.failures.append("stream with another text")

    async def told(self, http: ClientSession, text: str, first: int) -> list[Event]:
        """Read a stream to its end, at whichever replica goes on with it."""
        told: list[Event] = []
        body = {"model": MODEL, "input": text, "stream": True}
        key = {"idempotency-key": _name(text)}
        for turn in range(100):
            url = f"{self.replicas[(first + turn) % 2].url}/v1/responses"
            asking: Any
            if told:
                self.resumed += 1
                query = {"stream": "true", "starting_after": str(told[-1]["sequence_number"])}
                asking = http.get(f"{url}/{told[0]['response']['id']}", params=query)
            else:
                asking = http.post(url, json=body, headers=key)
            try:
                async with asking as answer:
                    if answer.status == 200 and await _read(answer, told):
                        return told
            except GONE:
                pass
            self.refused += 1
            await asyncio.sleep(0.02)
        return told


def _name(text: str) -> str:
    """What tells one request of a load from all others."""
    found = re.search(r"mark[0-9a-f]+-[0-9]+", text)
    assert found is not None
    return found.group()


async def _read(answer: Any, told: list[Event]) -> bool:
    """Read events until the stream ends; say whether it is at its end."""
    frame = b""
    async for line in answer.content:
        frame += line
        if not frame.endswith(b"\n\n"):
            continue
        if frame.startswith(DONE):
            return True
        if not frame.startswith(b":"):
            told.append(event_of(frame.removesuffix(b"\n\n")))
        frame = b""
    return False


async def test_a_rolling_restart_of_all_replicas_under_load_fails_no_request_and_doubles_no_call(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    stack = replicas[0].stack
    load = Load(replicas, mark)
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    async with ClientSession(headers=headers, connector=TCPConnector(limit=0)) as http:
        clients = [
            asyncio.create_task(client)
            for number in range(CLIENTS)
            for client in (load.json(http), load.background(http), load.stream(http, number))
        ]
        try:
            for name in (*WORKERS, *INTAKES):
                await until(lambda: len(load.asked) > CLIENTS, "requests are under way")
                stopped = terminate(stack, name)
                await stack.ready_again(name, after=stopped)
        finally:
            load.going = False
            await asyncio.gather(*clients)

    assert load.failures == []
    assert load.resumed > 0, "no stream was handed over"
    calls = Counter(_name(str(request["body"]["input"])) for request in upstream.requests(mark))
    assert {name: calls[name] for name in map(_name, load.asked)} == dict.fromkeys(calls, 1)


async def test_a_stream_longer_than_the_drain_time_ends_in_order_and_goes_on_elsewhere(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    async with first.http.post(
        "/v1/responses",
        data=orjson.dumps(
            {"model": MODEL, "input": f"tokens: 40 ; fault:hold@20#{mark}", "stream": True}
        ),
    ) as answer:
        told: list[Event] = []
        reading = asyncio.create_task(_read(answer, told))
        await until(lambda: len(told) > 15, "the stream has begun")
        stopped = terminate(first.stack, first.name)
        # No error, and no end either: whoever reads knows that there is more.
        assert await reading is False
    after = told[-1]["sequence_number"]
    async with resuming(second.http, told[0]["response"]["id"], after=after) as again:
        upstream.release(mark)
        told += await again.rest()
    assert numbers(told) == list(range(len(told)))
    assert text_of(told[-1]["response"]).endswith("w38 w39")
    assert len(upstream.requests(mark)) == 1
    await first.stack.ready_again(first.name, after=stopped)


async def test_a_stream_that_its_worker_can_not_end_in_time_fails_with_what_was_said(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    stack = first.stack
    async with streaming(first.http, MODEL, f"tokens: 40 ; fault:hold@20#{mark}") as stream:
        await stream.until(15)
        name = await worker_of(stack, "antiphon_worker_open_responses")
        stopped = terminate(stack, name)
        told = await stream.rest()
    upstream.release(mark)
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.failed"
    said = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
    assert text_of(told[-1]["response"]) == said != ""
    kept = await second.client.responses.retrieve(told[0]["response"]["id"])
    assert (kept.status, kept.output_text) == ("failed", said)
    assert len(upstream.requests(mark)) == 1
    await stack.ready_again(name, after=stopped)


async def test_what_a_worker_can_not_end_in_time_is_taken_up_at_once_by_the_other(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    stack = first.stack
    asked = await first.client.responses.create(
        model=MODEL, input=f"say: at last ; fault:hold#{mark}", background=True
    )
    await until(lambda: upstream.requests(mark), "the provider has the request")
    name = await worker_of(stack, "antiphon_worker_background_running")
    stopped = terminate(stack, name)
    await until(lambda: upstream.requests(mark)[0]["client_closed"], "the worker lets go")
    began = time.monotonic()
    await until(lambda: len(upstream.requests(mark)) == 2, "the other worker asks")
    assert time.monotonic() - began < HANDED_OVER_S
    upstream.release(mark)

    async def ended() -> bool:
        return (await second.client.responses.retrieve(asked.id)).status == "completed"

    await found(ended, "the response is at its end")
    await stack.ready_again(name, after=stopped)
