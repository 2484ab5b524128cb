"""Limits of keys over HTTP: what is admitted, what answers say of it, which models may be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.topics import RESPONSES_COMMANDS
from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import Replica
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
KINDS: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}]
Limited = Callable[..., Awaitable[tuple[str, ClientSession]]]


@pytest.fixture
async def limited(stack: Stack, http: ClientSession) -> AsyncIterator[Limited]:
    """Makes a key with bounds and gives its id and plain HTTP with it."""
    async with AsyncExitStack() as opened:

        async def make(**bounds: Any) -> tuple[str, ClientSession]:
            async with http.post("/v1/keys", json={"name": "limited", **bounds}) as answer:
                assert answer.status == 200, await answer.text()
                key = await answer.json()
            headers = {"authorization": f"Bearer {key['key']}"}
            session = await opened.enter_async_context(ClientSession(stack.url, headers=headers))
            return str(key["id"]), session

        yield make


async def ask(
    session: ClientSession, text: str = "say: hi", **fields: Any
) -> tuple[int, Mapping[str, str], str]:
    body = {"model": MODEL, "input": text, **fields}
    async with session.post("/v1/responses", json=body) as answer:
        return answer.status, answer.headers, await answer.text()


async def test_more_requests_than_the_limit_are_refused_and_leave_nothing_on_a_topic(
    limited: Limited, topics: Topics, upstream: UpstreamProcess
) -> None:
    _, session = await limited(requests_per_minute=4)
    before = sum((await topics.ends(RESPONSES_COMMANDS.name)).values())
    answers = await asyncio.gather(*(ask(session) for _ in range(20)))
    statuses = [status for status, _, _ in answers]
    assert statuses.count(200) == 4
    assert statuses.count(429) == 16
    assert sum((await topics.ends(RESPONSES_COMMANDS.name)).values()) == before + 4
    for status, headers, text in answers:
        assert headers["x-ratelimit-limit-requests"] == "4"
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in headers
        if status == 429:
            assert headers["x-ratelimit-remaining-requests"] == "0"
            assert 1 <= int(headers["retry-after"]) <= 15
            assert '"code":"rate_limit_exceeded"' in text
            assert '"type":"requests"' in text


@pytest.mark.parametrize("kind", KINDS, ids=["json", "stream", "background"])
async def test_every_kind_of_answer_says_how_the_limits_stand(
    limited: Limited, upstream: UpstreamProcess, kind: dict[str, Any]
) -> None:
    _, session = await limited(requests_per_minute=60, tokens_per_minute=50_000)
    status, headers, _ = await ask(session, **kind)
    assert status == 200
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-tokens"] == "50000"
    assert 48_000 < int(headers["x-ratelimit-remaining-tokens"]) < 50_000
    status, headers, _ = await ask(session, **kind, temperature=9)
    assert status == 400
    assert int(headers["x-ratelimit-remaining-requests"]) in (59, 60)


@pytest.mark.parametrize("kind", KINDS, ids=["json", "stream", "background"])
async def test_what_a_response_used_takes_the_place_of_the_estimate(
    limited: Limited, upstream: UpstreamProcess, kind: dict[str, Any]
) -> None:
    _, session = await limited(tokens_per_minute=30_000)
    script = 'usage: {"input_tokens": 80000, "output_tokens": 1} ; say: much'
    status, headers, _ = await ask(session, script, **kind)
    assert status == 200
    assert int(headers["x-ratelimit-remaining-tokens"]) > 28_000

    async def refused() -> Mapping[str, str] | None:
        status, headers, text = await ask(session)
        if status == 200:
            return None
        assert (status, '"type":"tokens"' in text) == (429, True)
        return headers

    headers = await found(refused, "the tokens are counted")
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert int(headers["retry-after"]) > 60


async def test_tokens_that_were_estimated_in_vain_come_back(
    limited: Limited, upstream: UpstreamProcess
) -> None:
    _, session = await limited(tokens_per_minute=4_000)
    for _ in range(12):
        # Each is estimated at a thousand tokens and uses five: without return four were all.
        async def admitted() -> bool:
            return (await ask(session))[0] == 200

        await found(admitted, "the estimate of the one before is settled", bound_s=10)


async def test_two_replicas_hold_one_limit_and_know_what_the_other_changed(
    replicas: tuple[Replica, Replica], upstream: UpstreamProcess
) -> None:
    first, second = replicas
    body = {"name": "limited", "requests_per_minute": 10, "tokens_per_minute": 1_000_000}
    async with first.http.post("/v1/keys", json=body) as answer:
        key = await answer.json()
    headers = {"authorization": f"Bearer {key['key']}"}
    async with (
        ClientSession(first.url, headers=headers) as one,
        ClientSession(second.url, headers=headers) as other,
    ):

        async def known() -> bool:
            async with other.get("/v1/models") as answer:
                return answer.status == 200

        await found(known, "the other replica knows the key")
        began_s = time.monotonic()
        answers = await asyncio.gather(*(ask([one, other][n % 2]) for n in range(60)))
        statuses = [status for status, _, _ in answers]
        # A bucket of ten gets room for one more in six seconds.
        assert 10 <= statuses.count(200) <= 11 + (time.monotonic() - began_s) / 6
        assert statuses.count(200) + statuses.count(429) == 60
        async with second.http.delete(f"/v1/keys/{key['id']}") as answer:
            assert answer.status == 200

        async def refused() -> bool:
            return (await ask(one))[0] == 401

        await found(refused, "the first replica refuses the key that the other revoked")


async def test_operations_and_websockets_count_too(
    limited: Limited, upstream: UpstreamProcess
) -> None:
    _, session = await limited(requests_per_minute=3, tokens_per_minute=50_000)
    body = {"model": MODEL, "input": "say: hi"}
    for path, left in (("input_tokens", "2"), ("compact", "1")):
        async with session.post(f"/v1/responses/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["x-ratelimit-remaining-requests"] == left
    async with session.ws_connect("/v1/responses") as socket:
        for last in ("response.completed", "error"):
            await socket.send_json({"type": "response.create", **body})
            event: dict[str, Any] = {"type": ""}
            while event["type"] not in ("response.completed", "error"):
                event = await socket.receive_json(timeout=30)
            assert event["type"] == last, event
    assert (event["status"], event["error"]["code"]) == (429, "rate_limit_exceeded")
    async with session.post("/v1/responses/compact", json=body) as answer:
        assert answer.status == 429
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(answer.headers["retry-after"]) >= 1


async def test_the_official_client_knows_the_refusal(
    stack: Stack, limited: Limited, upstream: UpstreamProcess
) -> None:
    _, session = await limited(requests_per_minute=1)
    secret = session.headers["authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=secret, max_retries=0) as client:
        raw = await client.responses.with_raw_response.create(model=MODEL, input="say: hi")
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(model=MODEL, input="say: hi")
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")


async def test_a_key_without_limits_hears_nothing_of_them(http: ClientSession) -> None:
    _, headers, _ = await ask(http)
    assert not any(name.lower().startswith("x-ratelimit") for name in headers)


async def test_a_limit_that_is_changed_counts_at_once(
    http: ClientSession, limited: Limited, upstream: UpstreamProcess
) -> None:
    key_id, session = await limited(requests_per_minute=1)
    assert [(await ask(session))[0] for _ in range(2)] == [200, 429]
    async with http.post(f"/v1/keys/{key_id}", json={"requests_per_minute": None}) as answer:
        assert (await answer.json())["requests_per_minute"] is None
    assert (await ask(session))[0] == 200


async def test_a_key_asks_and_sees_its_models_alone(
    http: ClientSession, limited: Limited, upstream: UpstreamProcess
) -> None:
    _, session = await limited(allowed_models=["gpt-4o*", DIALECTS["chat"]])
    assert (await ask(session))[0] == 200
    assert (await ask(session, model=DIALECTS["chat"]))[0] == 200
    status, _, text = await ask(session, model="gpt-5.1")
    assert status == 404
    assert '"code":"model_not_found"' in text
    async with http.get("/v1/models") as answer:
        every = {model["id"] for model in (await answer.json())["data"]}
    async with session.get("/v1/models") as answer:
        seen = {model["id"] for model in (await answer.json())["data"]}
    assert seen == {name for name in every if name.startswith("gpt-4o")} | {DIALECTS["chat"]}
    async with session.get(f"/v1/models/{DIALECTS['local']}") as answer:
        assert answer.status == 404
    for path in ("/v1/responses/input_tokens", "/v1/responses/compact"):
        async with session.post(path, json={"model": "gpt-5.1", "input": "hi"}) as answer:
            assert answer.status == 404


async def test_a_rotated_key_has_two_secrets_for_the_time_of_grace(
    stack: Stack, http: ClientSession, limited: Limited, upstream: UpstreamProcess
) -> None:
    key_id, session = await limited()
    async with http.post(f"/v1/keys/{key_id}/rotate", json={"grace_seconds": 2}) as answer:
        assert answer.status == 200
        secret = (await answer.json())["key"]
    headers = {"authorization": f"Bearer {secret}"}
    async with ClientSession(stack.url, headers=headers) as renewed:
        assert (await ask(session))[0] == (await ask(renewed))[0] == 200

        async def refused() -> str | None:
            status, _, text = await ask(session)
            return text if status == 401 else None

        assert "rotated" in await found(refused, "the old secret is refused")
        assert (await ask(renewed))[0] == 200
