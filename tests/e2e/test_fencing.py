"""A worker that stands still beyond its leases and wakes up: what it held has one outcome."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from contracts.responses import ResponseFinishedV1
from contracts.topics import RESPONSES_LIFECYCLE
from infra.local.process import log_file
from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import Replica
from tests.e2e.stack import Stack
from tests.e2e.test_crashes import held
from tests.e2e.topics import Topics
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
REQUESTS = 8


async def test_what_a_worker_held_that_stood_still_is_stated_by_its_successor_alone(
    replicated_stack: Stack,
    replicas: tuple[Replica, Replica],
    upstream: UpstreamProcess,
    mark: str,
) -> None:
    topics = Topics(replicated_stack.kafka_bootstrap)
    begin = await topics.ends(RESPONSES_LIFECYCLE.name)
    client = replicas[0].client
    log = log_file(replicated_stack.home, "worker")
    since = log.stat().st_size

    async def begun() -> str:
        text = f"say: {mark} ; fault:hold#{mark}"
        return (await client.responses.create(model=MODEL, input=text, background=True)).id

    ids = [await begun() for _ in range(REQUESTS)]
    await until(lambda: held(upstream, mark) == REQUESTS, "the provider has all")

    async def ended(response_id: str) -> Any:
        now = await client.responses.retrieve(response_id)
        return None if now.status in ("queued", "in_progress") else now

    with replicated_stack.paused("worker"):
        await until(lambda: len(upstream.requests(mark)) > REQUESTS, "another took over")
        upstream.release(mark)
        answers = [await found(partial(ended, one), f"{one} has ended") for one in ids]
    assert {answer.output_text for answer in answers} == {mark}

    def noticed() -> bool:
        with log.open("rb") as lines:
            lines.seek(since)
            told = lines.read().decode()
        return any(one in told and "lost" in told for one in ids)

    await until(noticed, "the worker noticed what it lost")
    last = (await client.responses.create(model=MODEL, input="say: last")).id

    def is_ours(fact: Any) -> bool:
        return isinstance(fact, ResponseFinishedV1) and fact.response_id in {*ids, last}

    facts = await topics.facts(RESPONSES_LIFECYCLE.name, begin, is_ours, count=REQUESTS + 1)
    assert Counter(fact.response_id for fact in facts) == Counter([*ids, last])
    assert [await ended(one) for one in ids] == answers
