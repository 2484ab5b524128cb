"""Background responses that wait: keys take turns, urgent ones go first, nothing runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from contracts.topics import RESPONSES_LIFECYCLE
from infra.local.ports import free_port
from infra.local.settings import LocalSettings
from tests.e2e.stack import Stack, running_stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import until
from tests.upstream import UpstreamProcess

MODEL = "gpt-4o-mini"
ROOM = 4
PER_KEY = 6
MANY = 1_000
FEW = 10
DRAIN_S = 120.0
GROWTH_BYTES = 40 * 1024 * 1024


@pytest.fixture(scope="module")
def small_stack(
    tmp_path_factory: pytest.TempPathFactory, upstream_process: UpstreamProcess
) -> Iterator[Stack]:
    """A stack whose two workers run four background responses each."""
    home: Path = tmp_path_factory.mktemp("queue")
    servers = home / "mcp_servers.toml"
    servers.write_text("servers = []\n")
    settings = {
        "ANTIPHON_DOWNLOADS": str(LocalSettings.load().downloads),
        "UPSTREAM_BASE_URL": upstream_process.base_url,
        "UPSTREAM_API_KEY": "any",
        "MCP_BROKER_SERVERS": str(servers),
        "WORKER_REPLICAS": "2",
        "WORKER_MAX_BACKGROUND": str(ROOM),
        "WORKER_BACKGROUND_PER_KEY": str(PER_KEY),
        "WORKER_BACKGROUND_POLL_SECONDS": "0.3",
        "WORKER_LEASE_SECONDS": "3",
        "WORKER_SWEEP_SECONDS": "0.5",
    }
    with running_stack(home / "stack", free_port(), settings) as running:
        yield running


@pytest.fixture
async def http(small_stack: Stack) -> AsyncIterator[ClientSession]:
    """Plain HTTP with the administrator's key."""
    headers = {"authorization": f"Bearer {small_stack.admin_key}"}
    async with ClientSession(small_stack.url, headers=headers) as session:
        yield session


@pytest.fixture
def log(small_stack: Stack) -> Topics:
    """This stack's topics."""
    return Topics(small_stack.kafka_bootstrap)


async def new_key(http: ClientSession) -> dict[str, str]:
    async with http.post("/v1/keys", json={"name": f"key {uuid4().hex}"}) as answer:
        assert answer.status == 200, await answer.text()
        return {"authorization": f"Bearer {(await answer.json())['key']}"}


async def ask(http: ClientSession, key: dict[str, str], text: str, chat: str, **more: Any) -> str:
    body = {"model": MODEL, "input": text, "background": True, **more}
    body["metadata"] = {"chat_id": chat}
    async with http.post("/v1/responses", json=body, headers=key) as answer:
        assert answer.status == 200, await answer.text()
        created = await answer.json()
    assert created["status"] == "queued"
    return str(created["id"])


async def status_of(http: ClientSession, key: dict[str, str], response_id: str) -> str:
    async with http.get(f"/v1/responses/{response_id}", headers=key) as answer:
        return str((await answer.json())["status"])


async def ends(
    log: Topics, begin: Any, chat: str, *, count: int, distinct: bool = False
) -> list[Any]:
    def is_ours(fact: Any) -> bool:
        return bool(
            fact.TYPE == "antiphon.response.finished.v1"
            and (fact.principal.chat or "").startswith(chat)
        )

    topic = RESPONSES_LIFECYCLE.name
    return list(await log.facts(topic, begin, is_ours, count=count, distinct=distinct))


def memory_bytes(stack: Stack, name: str) -> int:
    status = Path(f"/proc/{stack.pid(name)}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def test_a_key_with_a_thousand_waiting_does_not_keep_another_from_its_turn(
    small_stack: Stack, http: ClientSession, log: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    greedy, modest = await new_key(http), await new_key(http)
    begin = await log.ends(RESPONSES_LIFECYCLE.name)
    before = memory_bytes(small_stack, "worker")
    for start in range(0, MANY, 100):
        await asyncio.gather(
            *(
                ask(http, greedy, f"say: {mark} a{n} ; fault:hang@0.1", f"{mark}a")
                for n in range(start, start + 100)
            )
        )
    await asyncio.gather(
        *(ask(http, modest, f"say: {mark} b{n} ; fault:hang@0.1", f"{mark}b") for n in range(FEW))
    )
    await asyncio.to_thread(
        upstream.wait_until,
        lambda stats: sum(stats["by_path"].values()) >= MANY + FEW,
        DRAIN_S,
    )
    facts = await ends(log, begin, mark, count=MANY + FEW)
    facts.sort(key=lambda fact: fact.finished_at)
    order = [fact.principal.chat[-1] for fact in facts]
    after_the_few = order[len(order) - order[::-1].index("b") :]
    assert after_the_few.count("a") > MANY / 4
    assert {fact.status for fact in facts} == {"completed"}
    assert asked_for(upstream, mark) == dict.fromkeys(
        [*(f"a{n}" for n in range(MANY)), *(f"b{n}" for n in range(FEW))], 1
    )
    assert memory_bytes(small_stack, "worker") - before < GROWTH_BYTES


def asked_for(upstream: UpstreamProcess, mark: str) -> dict[str, int]:
    """How often each answer was asked for."""
    inputs = (request["body"]["input"] for request in upstream.requests(mark))
    return dict(Counter(text.split()[2] for text in inputs))


def asked_times(upstream: UpstreamProcess, mark: str, count: int) -> bool:
    return len(upstream.requests(mark)) >= count


async def fill(
    http: ClientSession, upstream: UpstreamProcess, key: dict[str, str], mark: str
) -> list[str]:
    """Let a key have all that may run of it at once; each waits for its own release."""
    ids = [
        await ask(http, key, f"say: {mark} held{n} ; fault:hold#{mark}held{n}", mark)
        for n in range(PER_KEY)
    ]
    await until(lambda: len(upstream.requests(mark)) == PER_KEY, "the key has no more room")
    return ids


async def test_urgent_responses_go_first_and_patient_ones_last(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    key = await new_key(http)
    await fill(http, upstream, key, mark)
    for tier in ("flex", "default", "priority"):
        text = f"say: {mark} {tier} ; fault:hold#{mark}{tier}"
        await ask(http, key, text, mark, service_tier=tier)
    for n, tier in enumerate(("priority", "default", "flex")):
        assert tier not in asked_for(upstream, mark)
        upstream.release(f"{mark}held{n}")
        await until(partial(asked_times, upstream, mark, PER_KEY + n + 1), "one more runs")
        assert list(asked_for(upstream, mark))[-1] == tier
    upstream.release()


async def test_a_response_that_waits_is_cancelled_without_waiting_for_its_turn(
    http: ClientSession, log: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    key = await new_key(http)
    await fill(http, upstream, key, mark)
    begin = await log.ends(RESPONSES_LIFECYCLE.name)
    waiting = await ask(http, key, f"say: {mark} waits", mark)
    assert await status_of(http, key, waiting) == "queued"
    async with http.post(f"/v1/responses/{waiting}/cancel", headers=key) as answer:
        assert (await answer.json())["status"] == "cancelled"
    [fact] = await ends(log, begin, mark, count=1)
    assert (fact.response_id, fact.status) == (waiting, "cancelled")
    assert await status_of(http, key, waiting) == "cancelled"
    upstream.release()
    await ends(log, begin, mark, count=1 + PER_KEY)
    assert "waits" not in asked_for(upstream, mark)


async def test_what_waits_and_what_runs_outlives_a_worker(
    small_stack: Stack, http: ClientSession, log: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    key = await new_key(http)
    begin = await log.ends(RESPONSES_LIFECYCLE.name)
    count = 60
    for n in range(count):
        await ask(http, key, f"say: {mark} w{n} ; fault:hang@0.2", mark)
    await until(lambda: len(upstream.requests(mark)) > PER_KEY, "some have ended")
    killed = small_stack.kill("worker")
    facts = await ends(log, begin, mark, count=count, distinct=True)
    assert {fact.status for fact in facts} == {"completed"}
    assert len({fact.response_id for fact in facts}) == count
    asked = asked_for(upstream, mark)
    assert len(asked) == count
    # Only what the dead worker was waiting for was asked for again.
    assert sum(asked.values()) <= count + ROOM
    await small_stack.ready_again("worker", after=killed)


async def test_a_foreground_request_does_not_wait_for_the_queue(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    keys = [await new_key(http) for _ in range(2)]
    for n, key in enumerate(keys):
        for m in range(PER_KEY):
            await ask(http, key, f"say: {mark} q{n}{m} ; fault:hold#{mark}", mark)
    await until(lambda: len(upstream.requests(mark)) == 2 * ROOM, "both workers are full")
    body = {"model": MODEL, "input": f"say: {mark} now"}
    async with http.post("/v1/responses", json=body) as answer:
        assert (await answer.json())["status"] == "completed"
    assert len(upstream.requests(mark)) == 2 * ROOM + 1
    upstream.release(mark)
