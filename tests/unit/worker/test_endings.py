"""How responses end that were stopped or interrupted: by whom they were answered, what it cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contracts.packs import Entry
from services.kit.retry import Backoff
from services.worker.domain import Job
from services.worker.errors import UpstreamError
from services.worker.runs.outcome import via, via_of
from services.worker.runs.recovery import Delivered
from tests.unit.worker.runs import as_sse, check_response, job, script_events, text_turn
from tests.unit.worker.test_runner import Run, Upstream, stored

LATER = UpstreamError("not now", status=503)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)


async def stopped(run: Run, of: Job, begun: asyncio.Event) -> dict[str, Any]:
    task = asyncio.create_task(run.runner.run(of, run.out))
    async with asyncio.timeout(5):
        await begun.wait()
        run.runner.stop(of.response_id)
        await task
    return run.outcome()


class Hanging:
    """Model turns that say something and hang."""

    def __init__(self, steps: list[Any]) -> None:
        self._steps = steps
        self.begun = asyncio.Event()

    async def turn(self, *_: Any, **__: Any) -> Any:
        for step in self._steps:
            yield step
        self.begun.set()
        await asyncio.Event().wait()


async def test_what_a_cancelled_response_had_said_is_kept_and_estimated() -> None:
    upstream = Upstream("a", chat=True)
    hanging: Any = Hanging(text_turn("hello there, friend")[:3])
    upstream.turns = hanging
    run = Run(upstream)
    response = await stopped(run, job(background=True), hanging.begun)
    assert response["status"] == "cancelled"
    assert response["output"][0]["content"][0]["text"] == "hello there, friend"
    assert response["usage"]["output_tokens"] > 0
    assert run.fact.estimated_usage
    check_response(response)


async def test_a_response_that_is_cancelled_before_it_said_anything_costs_nothing() -> None:
    upstream = Upstream("a", chat=True)
    hanging: Any = Hanging([])
    upstream.turns = hanging
    run = Run(upstream)
    response = await stopped(run, job(background=True, stream=False), hanging.begun)
    assert (response["output"], response["usage"]) == ([], None)
    assert not run.fact.estimated_usage


async def test_a_cancelled_response_names_the_provider_that_was_at_it() -> None:
    second = Upstream("b", chat=True)
    hanging: Any = Hanging([])
    second.turns = hanging
    run = Run(Upstream("a", LATER), second)
    await stopped(run, job(background=True), hanging.begun)
    assert run.fact.provider == "b"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_later_attempt_names_the_provider_that_had_answered(stream: bool) -> None:
    whole = as_sse(script_events("say: hi")) if stream else stored()
    first = Run(Upstream("a", LATER), Upstream("b", whole))
    await first.go(job(stream=stream))
    assert first.fact.provider == "b"

    later = Run(Upstream("a"), Upstream("b"))
    later.out.parts = list(first.out.parts)
    await later.go(job(stream=stream, attempt=2))
    assert later.fact.provider == "b"


async def test_one_provider_leaves_no_note_of_itself() -> None:
    run = Run(Upstream("a", as_sse(script_events("say: hi"))), Upstream("b"))
    await run.go(job())
    assert b"via" not in run.out.stream


@pytest.mark.parametrize("payload", [b": via x\n\n", b": heartbeat\n\n", b"data: {}\n\n", b""])
def test_other_bytes_are_no_note(payload: bytes) -> None:
    assert via_of(payload) is None
    assert via_of(via(3)) == 3


def test_a_note_is_found_among_events() -> None:
    seen = Delivered()
    entry = Entry(b"resp_ours", 1, 0, b"")
    seen.feed(entry, as_sse(script_events("say: hi")[:1]) + via(1))
    assert (seen.via, seen.last_sequence_number) == (1, 0)
