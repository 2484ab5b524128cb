"""Limits, breakers, retries and fallbacks before a provider over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from contracts.packs import Flag
from contracts.providers import ProviderConfig
from services.kit.clock import SystemClock
from services.kit.ids import new_id
from services.worker.clients import ProviderConnection
from services.worker.errors import ProviderBusyError, ProviderOpenError, UpstreamError
from services.worker.metrics import WorkerMetrics
from services.worker.providers.breaker import State
from services.worker.providers.client import UpstreamClient
from services.worker.providers.turns import ChatTurns, ResponsesTurns
from services.worker.runs.attempts import Attempts
from services.worker.runs.recovery import Delivered
from services.worker.runs.tries import Limits
from services.worker.service import ResponseRunner
from tests.unit.worker.runs import LocalTools, StatedFacts, Written, job
from tests.upstream import UpstreamProcess

MAX_BYTES = 1 << 20
BOUND_SECONDS = 10


def config(base_url: str, name: str = "first", **settings: Any) -> ProviderConfig:
    return ProviderConfig(name=name, base_url=base_url, **settings)


@asynccontextmanager
async def client(of: ProviderConfig, metrics: WorkerMetrics) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(of, api_key="", max_response_bytes=MAX_BYTES, metrics=metrics)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def ask(one: UpstreamClient, text: str) -> dict[str, Any]:
    return await one.read_json("/responses", orjson.dumps({"model": "gpt-5.1", "input": text}))


def metered() -> tuple[CollectorRegistry, WorkerMetrics]:
    registry = CollectorRegistry()
    return registry, WorkerMetrics(registry)


async def arrived(upstream: UpstreamProcess, count: int) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while len(upstream.requests()) < count:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.01)


async def test_above_its_limit_a_provider_is_waited_for_and_then_left(
    scripted_upstream: UpstreamProcess,
) -> None:
    _, metrics = metered()
    limited = config(scripted_upstream.base_url, max_concurrency=1, concurrency_wait_seconds=0.1)
    async with client(limited, metrics) as one:
        holding = asyncio.create_task(ask(one, "say: first ; fault:hold#limit"))
        await arrived(scripted_upstream, 1)
        with pytest.raises(ProviderBusyError) as caught:
            await ask(one, "say: second")
        assert (caught.value.status, caught.value.retry_after_seconds) == (503, 1)
        scripted_upstream.release("limit")
        await holding
        assert (await ask(one, "say: third"))["status"] == "completed"
    assert len(scripted_upstream.requests()) == 2


async def test_whatever_becomes_of_a_call_its_place_gets_free(
    scripted_upstream: UpstreamProcess,
) -> None:
    _, metrics = metered()
    limited = config(scripted_upstream.base_url, max_concurrency=1, concurrency_wait_seconds=0)
    async with client(limited, metrics) as one:
        with pytest.raises(UpstreamError):
            await ask(one, "fault:500")
        held = asyncio.create_task(ask(one, "say: x ; fault:hold#never"))
        await arrived(scripted_upstream, 2)
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        assert (await ask(one, "say: third"))["status"] == "completed"
        assert one.guard.calls_under_way() == 0
    scripted_upstream.release()


async def test_a_provider_that_fails_is_left_alone_until_a_probe_succeeds(
    scripted_upstream: UpstreamProcess,
) -> None:
    registry, metrics = metered()
    fragile = config(scripted_upstream.base_url, breaker_failures=2, breaker_open_seconds=0.3)
    async with client(fragile, metrics) as one:
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await ask(one, "fault:503")
        with pytest.raises(ProviderOpenError) as caught:
            await ask(one, "say: hi")
        assert caught.value.retry_after_seconds == 1
        assert len(scripted_upstream.requests()) == 2
        async with asyncio.timeout(BOUND_SECONDS):
            while one.guard.breaker_state() is State.OPEN:  # noqa: ASYNC110 - time sets no event
                await asyncio.sleep(0.01)
        assert (await ask(one, "say: hi"))["status"] == "completed"
        assert one.guard.breaker_state() is State.CLOSED
    name = "antiphon_worker_upstream_duration_seconds_count"
    assert registry.get_sample_value(name, {"provider": "first", "outcome": "failed"}) == 2
    assert registry.get_sample_value(name, {"provider": "first", "outcome": "answered"}) == 1


@pytest.mark.parametrize("fault", ["400", "404", "429"])
async def test_what_the_client_did_wrong_does_not_open_the_breaker(
    scripted_upstream: UpstreamProcess, fault: str
) -> None:
    _, metrics = metered()
    fragile = config(scripted_upstream.base_url, breaker_failures=1)
    async with client(fragile, metrics) as one:
        with pytest.raises(UpstreamError):
            await ask(one, f"fault:{fault}")
        assert one.guard.breaker_state() is State.CLOSED


@pytest.mark.parametrize("fault", ["hang@5", "reset", "cut@3", "stall@3,5", "malformed_json"])
async def test_a_stream_that_breaks_counts_against_the_provider(
    scripted_upstream: UpstreamProcess, fault: str
) -> None:
    run = Run(
        scripted_upstream,
        {
            "breaker_failures": 1,
            "retries": 0,
            "first_byte_timeout_seconds": 0.3,
            "idle_timeout_seconds": 0.3,
        },
    )
    await run.go(stream=True, text=f"tokens: 20 ; fault:{fault}")
    assert run.facts.outcomes[0][0].status == "failed"
    assert run.states == [State.OPEN]


class Run:
    """A runner before providers on the scripted upstream, one per table of settings."""

    def __init__(self, upstream: UpstreamProcess, *settings: dict[str, Any]) -> None:
        self._upstream = upstream
        self._settings = settings
        self.registry, self._metrics = metered()
        self.out = Written()
        self.facts = StatedFacts()
        self.states: list[State] = []

    async def go(self, *, text: str, stream: bool = False, **request: Any) -> dict[str, Any]:
        async with AsyncExitStack() as opened:
            connections = [
                await self._connect(opened, number, dict(given))
                for number, given in enumerate(self._settings)
            ]
            attempts = Attempts(
                upstreams=lambda _: connections,
                tools=LocalTools(),
                clock=SystemClock(),
                new_id=new_id,
                limits=Limits(max_turns=4, max_event_bytes=MAX_BYTES),
                metrics=self._metrics,
            )

            async def nothing(_: Any) -> Delivered:
                return Delivered()

            runner = ResponseRunner(
                attempts=attempts, facts=self.facts, clock=SystemClock(), read_back=nothing
            )
            await runner.run(job(stream=stream, input=text, **request), self.out)
            self.states = [one.client.guard.breaker_state() for one in connections]
        return self.facts.outcomes[0][1]

    async def _connect(
        self, opened: AsyncExitStack, number: int, given: dict[str, Any]
    ) -> ProviderConnection:
        given.setdefault("base_url", self._upstream.base_url)
        of = ProviderConfig(name=f"p{number}", **given)
        one = await opened.enter_async_context(client(of, self._metrics))
        turns: Any = ResponsesTurns(one, max_event_bytes=MAX_BYTES)
        if of.dialect == "chat":
            turns = ChatTurns(one, max_event_bytes=MAX_BYTES, new_id=new_id)
        return ProviderConnection(of, one, turns)

    @property
    def provider(self) -> str:
        return self.facts.outcomes[0][0].provider

    def counted(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"antiphon_worker_{name}", labels)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", ["responses", "chat"])
async def test_tries_are_used_up_and_then_the_next_provider_is_asked(
    scripted_upstream: UpstreamProcess, dialect: str, stream: bool
) -> None:
    run = Run(scripted_upstream, {"retries": 1, "dialect": dialect}, {"dialect": dialect})
    response = await run.go(text="say: hello ; fault:500x2", stream=stream)
    assert (response["status"], run.provider) == ("completed", "p1")
    assert run.counted("retries_total", provider="p0") == 1
    assert run.counted("fallbacks_total", provider="p0") == 1
    ended = {"provider": "p1", "model": "gpt-5.1", "outcome": "completed"}
    assert run.counted("response_duration_seconds_count", **ended) == 1
    first = run.counted("time_to_first_output_seconds_count", provider="p1", model="gpt-5.1")
    assert first == (1 if stream else None)


async def test_a_provider_that_nobody_answers_for_is_left_for_the_next(
    scripted_upstream: UpstreamProcess,
) -> None:
    dead = {"base_url": "http://127.0.0.1:9/v1", "retries": 0}
    run = Run(scripted_upstream, dead, {})
    assert (await run.go(text="say: hello"))["status"] == "completed"
    assert run.provider == "p1"


async def test_a_full_provider_and_an_open_one_are_left_for_the_next(
    scripted_upstream: UpstreamProcess,
) -> None:
    run = Run(
        scripted_upstream,
        {"retries": 2, "breaker_failures": 1, "breaker_open_seconds": 60},
        {},
    )
    response = await run.go(text="say: hello ; fault:503x1")
    assert (response["status"], run.provider) == ("completed", "p1")
    assert run.states == [State.OPEN, State.CLOSED]
    assert len(scripted_upstream.requests()) == 2


@pytest.mark.parametrize("fault", ["cut@6", "reset@6", "eof@6"])
async def test_nothing_is_tried_again_once_text_was_delivered(
    scripted_upstream: UpstreamProcess, fault: str
) -> None:
    run = Run(scripted_upstream, {"retries": 2}, {})
    response = await run.go(text=f"tokens: 20 ; fault:{fault}x1", stream=True)
    assert (response["status"], run.provider) == ("failed", "p0")
    assert len(scripted_upstream.requests()) == 1
    assert run.facts.outcomes[0][0].estimated_usage


async def test_what_began_without_text_goes_on_at_the_next_try(
    scripted_upstream: UpstreamProcess,
) -> None:
    run = Run(scripted_upstream, {"retries": 1})
    response = await run.go(text="say: hello ; fault:cut@1x1", stream=True)
    assert response["status"] == "completed"
    numbers = [event["sequence_number"] for event in run.out.events]
    assert numbers == list(range(len(numbers)))


async def test_the_wish_of_a_provider_to_be_asked_later_is_granted(
    scripted_upstream: UpstreamProcess,
) -> None:
    run = Run(scripted_upstream, {"retries": 1})
    began = time.monotonic()
    response = await run.go(text="say: hello ; fault:429@1x1")
    assert response["status"] == "completed"
    assert time.monotonic() - began >= 1


async def test_a_longer_wish_is_passed_on_to_the_client(
    scripted_upstream: UpstreamProcess,
) -> None:
    run = Run(scripted_upstream, {"retries": 2})
    await run.go(text="fault:429@90")
    [(flags, status, payload)] = run.out.parts
    assert flags == Flag.LAST | Flag.JSON
    assert status == 429
    body = orjson.loads(payload)
    assert (body["error"]["type"], body["retry_after_seconds"]) == ("rate_limit_error", 90)
    assert len(scripted_upstream.requests()) == 1


@pytest.mark.parametrize("dialect", ["responses", "chat"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_without_tools_is_asked_without_them(
    scripted_upstream: UpstreamProcess, dialect: str, stream: bool
) -> None:
    run = Run(scripted_upstream, {"dialect": dialect, "models_without_tools": ["gpt-5*"]})
    tools = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]
    response = await run.go(text="say: hello", stream=stream, tools=tools, tool_choice="auto")
    assert response["status"] == "completed"
    assert "tools_dropped" in response["metadata"]["antiphon_warnings"]
    assert response["tools"] == []
    [request] = scripted_upstream.requests()
    assert not request["body"].get("tools")
    assert "tool_choice" not in request["body"]


@pytest.mark.parametrize(("dialect", "sent"), [("responses", "flex"), ("chat", "batch")])
async def test_a_tier_reaches_the_provider_by_its_name_there(
    scripted_upstream: UpstreamProcess, dialect: str, sent: str
) -> None:
    tiers = {"flex": "batch"} if dialect == "chat" else {}
    run = Run(scripted_upstream, {"dialect": dialect, "service_tiers": tiers})
    await run.go(text="say: hello", service_tier="flex")
    [request] = scripted_upstream.requests()
    assert request["body"]["service_tier"] == sent


async def test_a_provider_has_a_tier_for_those_who_name_none(
    scripted_upstream: UpstreamProcess,
) -> None:
    run = Run(scripted_upstream, {"service_tier": "priority"})
    await run.go(text="say: hello")
    [request] = scripted_upstream.requests()
    assert request["body"]["service_tier"] == "priority"


@pytest.mark.parametrize("dialect", ["responses", "chat"])
async def test_a_stream_has_its_time_in_all_however_steadily_it_comes(
    scripted_upstream: UpstreamProcess, dialect: str
) -> None:
    run = Run(
        scripted_upstream,
        {"dialect": dialect, "retries": 0, "total_timeout_seconds": 0.5, "breaker_failures": 1},
    )
    response = await run.go(text="tokens: 200 ; fault:slow@0.05", stream=True)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert 0 < response["usage"]["output_tokens"] < 200
    assert run.states == [State.OPEN]
    called = run.counted("upstream_duration_seconds_count", provider="p0", outcome="timeout")
    assert called == 1


async def test_a_connection_that_is_not_taken_up_is_given_up_in_time(
    scripted_upstream: UpstreamProcess,
) -> None:
    with socket.socket() as deaf:
        # Nobody accepts, and the queue of the system is full after a few.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(("127.0.0.1", port))
        dead = {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "retries": 0,
            "connect_timeout_seconds": 0.2,
        }
        response = await Run(scripted_upstream, dead, {}).go(text="say: hello")
        for one in waiting:
            one.close()
    assert response["status"] == "completed"
