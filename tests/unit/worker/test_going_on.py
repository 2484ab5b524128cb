"""Runs that go on from where they were: turns asked again, fallbacks, what an end costs."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from services.kit.retry import Backoff
from services.worker.checkpoints.state import Boundary, Detached, State
from services.worker.domain import Job
from services.worker.errors import LeaseLostError, UpstreamError
from services.worker.tools.mcp import McpCall
from tests.unit.worker.runs import (
    MCP_TOOL,
    as_sse,
    call_turn,
    check_stream,
    config,
    job,
    kinds,
    script_events,
    text_turn,
)
from tests.unit.worker.test_runner import Run, Upstream, on_log, ours, stored

LATER = UpstreamError("not now", status=503)
FORGOTTEN = UpstreamError("no such response", status=404, retryable=False)
THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "theirs"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)


class Kept:
    """Leases and checkpoints of one response."""

    def __init__(self, state: State | None = None, *, sure: bool = True, ours: bool = True) -> None:
        self.state = state
        self.saved: list[State] = []
        self._sure, self._ours = sure, ours

    async def save(self, _: str, __: int, state: State) -> None:
        self.saved.append(state)

    async def take_over(self, _: str, __: int) -> State | None:
        return self.state

    def sure(self, _: str, __: int) -> bool:
        return self._sure

    async def confirm(self, _: str, __: int) -> bool:
        return self._ours


def keeping(run: Run, kept: Kept) -> Run:
    run.runner.keep_with(kept, kept)
    return run


def thoughtful_turn() -> list[Any]:
    *steps, end = call_turn(("echo", "{}"))
    for step in steps:
        step["output_index"] = 1
    done = {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT}
    added = {"type": "response.output_item.added", "output_index": 0, "item": THOUGHT}
    end.output.insert(0, THOUGHT)
    return [added, done, *steps, end]


async def test_a_turn_of_which_nothing_was_told_is_asked_again_and_not_the_one_before() -> None:
    upstream = Upstream("a", call_turn(("echo", "{}")), [LATER], text_turn("hi"), retries=1)
    run = Run(upstream)
    response = await run.go(job(tools=[MCP_TOOL]))
    check_stream(run.out.events)
    assert response["status"] == "completed"
    assert len(upstream.turns.asked) == 3
    assert len(run.tools.made) == 1
    assert response["usage"]["input_tokens"] == 7 + 10
    assert not run.fact.estimated_usage


async def test_a_list_of_tools_is_no_reason_not_to_ask_another_provider() -> None:
    run = Run(Upstream("a", [LATER], chat=True), Upstream("b", text_turn("hi"), chat=True))
    response = await run.go(job(tools=[MCP_TOOL]))
    check_stream(run.out.events)
    assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "message"]


@pytest.mark.parametrize("chat", [True, False])
async def test_another_provider_is_told_what_came_of_the_turns_before_without_ids(
    chat: bool,
) -> None:
    second = Upstream("b", text_turn("hi", index=0), chat=chat)
    run = Run(Upstream("a", thoughtful_turn(), [LATER]), second)
    response = await run.go(job(tools=[MCP_TOOL]))
    check_stream(run.out.events)
    assert response["status"] == "completed"
    _, items = second.turns.asked[0]
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"]
    assert "id" not in items[1]
    assert run.fact.provider == "b"


async def test_a_turn_that_broke_is_estimated_and_those_before_are_not() -> None:
    run = Run(Upstream("a", call_turn(("echo", "{}")), [*text_turn("hello")[:3], LATER]))
    response = await run.go(job(tools=[MCP_TOOL]))
    assert response["status"] == "failed"
    assert response["usage"]["input_tokens"] > 7
    assert run.fact.estimated_usage
    assert response["output"][1]["status"] == "completed"


async def test_what_a_failure_between_turns_cost_is_known() -> None:
    run = Run(Upstream("a", call_turn(("echo", "{}")), [LATER]))
    response = await run.go(job(tools=[MCP_TOOL]))
    assert (response["status"], response["usage"]["input_tokens"]) == ("failed", 7)
    assert not run.fact.estimated_usage


async def test_a_stop_while_tools_run_costs_what_the_turns_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(Upstream("a", call_turn(("echo", "{}"))))
    called = asyncio.Event()

    async def hang(_: Job, __: McpCall) -> Any:
        called.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(run.tools, "call", hang)
    task = asyncio.create_task(
        run.runner.run(job(tools=[MCP_TOOL], background=True, stream=False), run.out)
    )
    async with asyncio.timeout(5):
        await called.wait()
        run.runner.stop("resp_ours")
        await task
    response = run.outcome()
    assert (response["status"], response["usage"]["output_tokens"]) == ("cancelled", 3)
    assert not run.fact.estimated_usage


async def test_a_checkpoint_is_asked_of_its_provider_first() -> None:
    boundary = Boundary(provider="b", created_at=1, next_number=2, turns=1, output=[])
    first, second = Upstream("a", chat=True), Upstream("b", text_turn("hi"), chat=True)
    run = keeping(Run(first, second), Kept(boundary))
    await run.go(job(attempt=2, tools=[MCP_TOOL], stream=False))
    assert run.fact.provider == "b"


@pytest.mark.parametrize(("sure", "asked", "told"), [(0, 0, 0), (1, 1, 0), (2, 1, 1)])
async def test_who_lost_the_lease_asks_nobody_and_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch, sure: int, asked: int, told: int
) -> None:
    kept = Kept(ours=False)
    answers = iter([True] * sure + [False])
    monkeypatch.setattr(kept, "sure", lambda *_: next(answers))
    upstream = Upstream("a", stored())
    run = keeping(Run(upstream), kept)
    with pytest.raises(LeaseLostError):
        await run.runner.run(job(stream=False), run.out)
    assert run.facts.outcomes == []
    assert (len(upstream.client.asked), len(run.out.parts)) == (asked, told)


async def test_who_still_has_the_lease_goes_on() -> None:
    run = keeping(Run(Upstream("a", stored())), Kept(sure=False))
    assert (await run.go(job(stream=False)))["status"] == "completed"


async def test_an_estimate_on_the_log_is_stated_as_one_again() -> None:
    events = script_events("say: one two three")
    first = Run(Upstream("a", [as_sse(events[:5]), LATER]))
    await first.go(job())
    again = Run(Upstream("a"))
    again.out.parts = list(first.out.parts)
    await again.go(job(attempt=2))
    assert again.fact.estimated_usage


class Vendor:
    """A provider that gives the answers it was made with about its responses."""

    def __init__(self, *answers: Any, usage: dict[str, Any] | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self._usage = usage

    async def retrieve(self, response_id: str) -> dict[str, Any]:
        self.asked.append(response_id)
        answer = self.answers.pop(0)
        if isinstance(answer, UpstreamError):
            raise answer
        return dict(answer)

    async def cancel(self, response_id: str) -> dict[str, Any]:
        self.cancelled.append(response_id)
        return {"id": response_id, "status": "cancelled", "usage": self._usage}


def detached(run: Run, upstream: Upstream, vendor: Vendor, **changed: Any) -> Run:
    upstream.config = config("a").model_copy(update={"background": True, **changed})
    run.runner.attempts.vendors = {"a": vendor}
    return run


RUNNING = {"id": "resp_theirs", "status": "in_progress"}
FOLLOWED = Detached(provider="a", upstream_id="resp_theirs", exact=True, asked_at=0.0)


async def test_an_answer_in_the_background_is_asked_after_until_it_is_there() -> None:
    upstream, kept = Upstream("a", RUNNING), Kept()
    vendor = Vendor(RUNNING, LATER, RUNNING, stored())
    run = keeping(detached(Run(upstream), upstream, vendor), kept)
    response = await run.go(job(stream=False, background=True))
    assert response["status"] == "completed"
    [asked] = upstream.client.asked
    assert (asked["background"], asked["store"], asked.get("stream")) == (True, True, None)
    [state] = kept.saved
    assert isinstance(state, Detached)
    assert (state.upstream_id, vendor.asked) == ("resp_theirs", ["resp_theirs"] * 4)


async def test_a_later_attempt_asks_after_it_and_for_nothing_new() -> None:
    upstream = Upstream("a")
    soon = {"background_seconds": 1e12}
    run = keeping(detached(Run(upstream), upstream, Vendor(stored()), **soon), Kept(FOLLOWED))
    response = await run.go(job(stream=False, background=True, attempt=2))
    assert response["status"] == "completed"
    assert upstream.client.asked == []


async def test_what_takes_too_long_is_stopped_and_fails() -> None:
    upstream, vendor = Upstream("a"), Vendor(*[RUNNING] * 9)
    run = keeping(detached(Run(upstream), upstream, vendor), Kept(FOLLOWED))
    response = await run.go(job(stream=False, background=True, attempt=2))
    assert response["status"] == "failed"
    assert "took longer" in response["error"]["message"]
    assert vendor.cancelled == ["resp_theirs"]


async def test_a_response_that_was_cancelled_meanwhile_is_stopped_at_its_provider() -> None:
    upstream, vendor = Upstream("a"), Vendor(usage={"input_tokens": 5, "output_tokens": 1})
    run = keeping(detached(Run(upstream), upstream, vendor), Kept(FOLLOWED))
    given = job(stream=False, background=True, attempt=2)
    await run.runner.run(Job(given.command, 2, given.request, [], cancelled=True), run.out)
    [(fact, response)] = run.facts.outcomes
    assert (fact.status, response["usage"]) == (
        "cancelled",
        {"input_tokens": 5, "output_tokens": 1},
    )
    assert vendor.cancelled == ["resp_theirs"]


async def test_what_can_not_be_followed_is_stopped_at_its_provider() -> None:
    refusal = UpstreamError("no", status=403, retryable=False)
    upstream, vendor, soon = Upstream("a"), Vendor(refusal), {"background_seconds": 1e12}
    run = keeping(detached(Run(upstream), upstream, vendor, **soon), Kept(FOLLOWED))
    response = await run.go(job(stream=False, background=True, attempt=2))
    assert response["status"] == "failed"
    assert vendor.cancelled == ["resp_theirs"]


async def test_a_stream_that_no_attempt_can_go_on_with_is_stopped_at_its_provider() -> None:
    earlier = on_log(as_sse(ours(script_events("say: one two three"))[:6]), last=False)
    upstream, vendor = Upstream("a"), Vendor()
    run = detached(Run(upstream, earlier=earlier), upstream, vendor)
    inexact = dataclasses.replace(FOLLOWED, exact=False)
    response = await keeping(run, Kept(inexact)).go(job(background=True, attempt=2))
    assert response["status"] == "failed"
    assert vendor.cancelled == ["resp_theirs"]


async def test_a_provider_that_forgot_it_is_asked_anew() -> None:
    upstream = Upstream("a", RUNNING, stored())
    vendor = Vendor(FORGOTTEN)
    run = keeping(detached(Run(upstream), upstream, vendor, retries=1), Kept())
    assert (await run.go(job(stream=False, background=True)))["status"] == "completed"
    assert len(upstream.client.asked) == 2


async def test_a_stream_whose_provider_streams_it_once_ends_with_its_object() -> None:
    events = script_events("say: one two three")
    upstream = Upstream("a", [as_sse(events[:6]), LATER], LATER)
    vendor = Vendor(RUNNING, stored("say: one two three"))
    run = keeping(detached(Run(upstream), upstream, vendor), Kept())
    upstream.client.answers += [LATER] * 3
    response = await run.go(job(background=True))
    check_stream(run.out.events)
    assert kinds(run.out.events)[-1] == "completed"
    assert response["status"] == "completed"


async def test_a_stream_goes_on_behind_what_was_told_even_if_it_is_told_from_its_beginning() -> (
    None
):
    events = script_events("say: one two three")
    earlier = on_log(as_sse(ours(script_events("say: one two three"))[:6]), last=False)
    upstream = Upstream("a", as_sse(events))
    run = detached(Run(upstream, earlier=earlier), upstream, Vendor(), background_seconds=1e12)
    response = await keeping(run, Kept(FOLLOWED)).go(job(background=True, attempt=2))
    check_stream(run.out.events, begins_at=6)
    assert response["output"] == events[-1]["response"]["output"]
    assert upstream.client.asked == [{"stream": "true", "starting_after": "5"}]
