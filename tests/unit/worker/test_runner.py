"""One job to its one end: retries, fallbacks, breaks, and what earlier attempts left on the log."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from contracts.packs import Flag
from services.kit.retry import Backoff
from services.worker.domain import Event, Job
from services.worker.errors import UpstreamError
from services.worker.runs.attempts import Attempts
from services.worker.runs.recovery import Delivered
from services.worker.runs.tries import Limits
from services.worker.service import ResponseRunner
from tests.unit.worker.runs import (
    MCP_TOOL,
    FixedClock,
    LocalTools,
    Provider,
    ScriptedTurns,
    StatedFacts,
    Written,
    as_sse,
    call_turn,
    check_response,
    check_stream,
    config,
    ids,
    job,
    kinds,
    script_events,
    text_turn,
)

LATER = UpstreamError("not now", status=503)
NEVER = UpstreamError("no such thing", status=400, code="unknown_thing", retryable=False)


class Upstream:
    """One provider as a run uses it."""

    def __init__(self, name: str, *answers: Any, retries: int = 0, chat: bool = False) -> None:
        self.config = config(name, "chat" if chat else "responses", retries=retries)
        self.client = Provider(list(answers), self.config)
        self.turns = ScriptedTurns(list(answers))


class Run:
    """A runner with everything it needs, and what came of it."""

    def __init__(self, *upstreams: Upstream, earlier: Delivered | None = None) -> None:
        self.out = Written()
        self.facts = StatedFacts()
        self.tools = LocalTools()
        self.earlier = earlier or Delivered()
        attempts = Attempts(
            upstreams=lambda _: upstreams,
            tools=self.tools,
            clock=FixedClock(),
            new_id=ids(),
            limits=Limits(max_turns=4, max_event_bytes=1 << 26),
        )
        self.runner = ResponseRunner(
            attempts=attempts, facts=self.facts, clock=FixedClock(), read_back=self._read_back
        )

    async def _read_back(self, _: Job) -> Delivered:
        for entry, payload in self.out.log:
            self.earlier.feed(entry, payload)
        return self.earlier

    async def go(self, of: Job) -> dict[str, Any]:
        await self.runner.run(of, self.out)
        return self.outcome()

    def outcome(self) -> dict[str, Any]:
        """Check what holds for every end; return the Response of the one fact."""
        [(fact, response)] = self.facts.outcomes
        check_response(response)
        assert fact.status == response["status"]
        assert response["id"] == "resp_ours"
        lasts = [flags for flags, _, _ in self.out.parts if flags & Flag.LAST]
        assert len(lasts) <= 1
        return response

    @property
    def answer(self) -> tuple[int, dict[str, Any]]:
        [(flags, status, payload)] = self.out.parts
        assert flags == Flag.JSON | Flag.LAST
        return status, orjson.loads(payload)

    @property
    def fact(self) -> Any:
        return self.facts.outcomes[0][0]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 0.0)


def stored(text: str = "say: hello") -> dict[str, Any]:
    return dict(script_events(text)[-1]["response"])


async def test_a_stream_is_piped_and_stated_after_its_last_bytes() -> None:
    run = Run(Upstream("a", as_sse(script_events("say: hello"))))
    response = await run.go(job())
    check_stream(run.out.events)
    assert response == run.out.events[-1]["response"]
    assert run.out.parts[-1][0] == Flag.LAST
    assert run.fact.last_sequence_number == run.out.events[-1]["sequence_number"]
    assert run.fact.provider == "a"


async def test_a_json_answer_is_the_provider_s_with_our_id() -> None:
    run = Run(Upstream("a", stored()))
    response = await run.go(job(stream=False))
    assert run.answer == (200, response)


async def test_a_provider_that_is_away_is_asked_again() -> None:
    run = Run(Upstream("a", LATER, LATER, stored(), retries=2))
    assert (await run.go(job(stream=False)))["status"] == "completed"


async def test_the_next_provider_is_asked_when_the_first_one_stays_away() -> None:
    run = Run(Upstream("a", LATER, LATER, retries=1), Upstream("b", stored()))
    await run.go(job(stream=False))
    assert run.fact.provider == "b"


async def test_what_can_not_help_is_not_tried_again() -> None:
    first = Upstream("a", NEVER, retries=3)
    run = Run(first)
    response = await run.go(job(stream=False))
    assert len(first.client.asked) == 1
    status, body = run.answer
    assert (status, body["error"]["code"]) == (400, "unknown_thing")
    assert response["error"] == {"code": "invalid_prompt", "message": "no such thing"}


async def test_a_stream_that_never_began_ends_as_failed_with_an_opening() -> None:
    run = Run(Upstream("a", LATER))
    response = await run.go(job())
    check_stream(run.out.events)
    assert kinds(run.out.events) == ["created", "failed"]
    assert response["error"]["code"] == "server_error"


async def test_a_stream_that_broke_keeps_its_output_and_is_not_tried_again() -> None:
    events = script_events("say: one two three")
    first, second = Upstream("a", [as_sse(events[:5]), LATER], retries=3), Upstream("b")
    run = Run(first, second)
    response = await run.go(job())
    check_stream(run.out.events)
    assert kinds(run.out.events)[-1] == "failed"
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] > 0
    assert run.fact.estimated_usage
    assert len(first.client.asked) == 1


async def test_a_composed_stream_is_tried_again_without_telling_its_beginning_twice() -> None:
    run = Run(Upstream("a", [LATER], chat=True), Upstream("b", text_turn("hi"), chat=True))
    response = await run.go(job())
    check_stream(run.out.events)
    assert kinds(run.out.events).count("created") == 1
    assert response["output"][0]["content"][0]["text"] == "hi"


async def test_a_pipe_goes_on_where_a_composed_attempt_ended() -> None:
    run = Run(Upstream("a", [LATER], chat=True), Upstream("b", as_sse(script_events("say: hello"))))
    await run.go(job())
    check_stream(run.out.events)
    assert kinds(run.out.events).count("created") == 1


async def test_a_composed_stream_that_broke_after_output_fails_with_it() -> None:
    run = Run(Upstream("a", [*text_turn("hi")[:3], LATER], retries=2, chat=True), Upstream("b"))
    response = await run.go(job())
    check_stream(run.out.events)
    assert response["status"] == "failed"
    assert response["output"][0]["content"][0]["text"] == "hi"
    assert run.fact.estimated_usage


async def test_tools_run_between_turns_whatever_the_dialect() -> None:
    for chat in (True, False):
        turns = (call_turn(("echo", "{}")), text_turn("done"))
        run = Run(Upstream("a", *turns, chat=chat))
        response = await run.go(job(tools=[MCP_TOOL], stream=False))
        assert [i["type"] for i in response["output"]] == ["mcp_list_tools", "mcp_call", "message"]


async def test_a_tool_that_nobody_has_is_refused_before_anybody_is_asked() -> None:
    first = Upstream("a")
    run = Run(first)
    await run.go(job(stream=False, tools=[{"type": "mcp", "server_label": "other"}]))
    status, body = run.answer
    assert (status, body["error"]["param"]) == (400, "tools[0].server_label")
    assert first.client.asked == []


async def test_a_model_that_nobody_serves_any_more_fails() -> None:
    response = await Run().go(job())
    assert response["status"] == "failed"


async def test_a_json_answer_without_an_end_is_the_provider_s_fault() -> None:
    run = Run(Upstream("a", stored() | {"status": "in_progress"}))
    await run.go(job(stream=False))
    assert run.answer[0] == 502


async def test_a_background_response_is_stated_as_started_and_answers_with_its_object() -> None:
    run = Run(Upstream("a", NEVER))
    response = await run.go(job(stream=False, background=True))
    assert run.facts.started_jobs == ["resp_ours"]
    assert run.answer == (200, response)
    assert response["status"] == "failed"


async def test_a_background_response_that_is_stopped_ends_as_cancelled() -> None:
    class Endless(Provider):
        async def read_json(self, path: str, body: bytes, *, headers: Any = None) -> dict[str, Any]:
            run.runner.stop("resp_ours")
            await asyncio.Event().wait()
            return {}

    upstream = Upstream("a")
    upstream.client = Endless([])
    run = Run(upstream)
    response = await run.go(job(stream=False, background=True))
    assert response["status"] == "cancelled"


def on_log(*parts: bytes, flags: int = Flag.NONE, last: bool = True) -> Delivered:
    """What an earlier attempt left, its end among it or not."""
    written = Written()
    for number, part in enumerate(parts):
        is_last = last and number == len(parts) - 1
        written.write(part, flags=flags | (Flag.LAST if is_last else 0))
    earlier = Delivered()
    for entry, payload in written.log:
        earlier.feed(entry, payload)
    return earlier


def ours(events: list[Event]) -> list[Event]:
    for event in events:
        if "response" in event:
            event["response"]["id"] = "resp_ours"
    return events


async def test_what_an_earlier_attempt_finished_is_only_stated_again() -> None:
    events = ours(script_events("say: hello"))
    silent = Upstream("a")
    run = Run(silent, earlier=on_log(as_sse(events)))
    response = await run.go(job(attempt=2))
    assert response == events[-1]["response"]
    assert run.out.parts == []
    assert silent.client.asked == []
    assert run.fact.last_sequence_number == events[-1]["sequence_number"]


async def test_a_json_answer_on_the_log_is_only_stated_again() -> None:
    body = stored() | {"id": "resp_ours"}
    run = Run(Upstream("a"), earlier=on_log(orjson.dumps(body), flags=Flag.JSON))
    assert await run.go(job(attempt=2, stream=False)) == body
    assert run.out.parts == []


async def test_a_json_error_on_the_log_is_stated_with_its_message() -> None:
    earlier = on_log(orjson.dumps(NEVER.body()), flags=Flag.JSON)
    response = await Run(Upstream("a"), earlier=earlier).go(job(attempt=2, stream=False))
    assert response["error"]["message"] == "no such thing"


async def test_a_stream_that_had_delivered_output_ends_as_failed_after_it() -> None:
    events = ours(script_events("say: one two three"))[:5]
    silent = Upstream("a")
    run = Run(silent, earlier=on_log(as_sse(events), last=False))
    response = await run.go(job(attempt=2))
    [last] = run.out.events
    assert (last["type"], last["sequence_number"]) == ("response.failed", 5)
    assert response["output"][0]["status"] == "incomplete"
    assert run.fact.estimated_usage
    assert silent.client.asked == []


async def test_a_stream_that_had_only_begun_is_run_again_behind_its_beginning() -> None:
    events = script_events("say: hello")
    earlier = on_log(as_sse(ours(script_events("say: hello"))[:2]), last=False)
    run = Run(Upstream("a", as_sse(events)), earlier=earlier)
    await run.go(job(attempt=2))
    check_stream(run.out.events, begins_at=2)
    assert kinds(run.out.events)[0] == "output_item.added"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_attempt_that_left_nothing_is_run_again_whole(stream: bool) -> None:
    answer = as_sse(script_events("say: hello")) if stream else stored()
    run = Run(Upstream("a", answer))
    assert (await run.go(job(attempt=2, stream=stream)))["status"] == "completed"
    if stream:
        check_stream(run.out.events)


async def test_garbage_on_the_log_does_not_keep_a_response_from_its_end() -> None:
    events = ours(script_events("say: one two three"))[:5]
    garbage = b"data: nonsense\n\n" + b'data: {"type": "x", "output_index": []}\n\n'
    run = Run(Upstream("a"), earlier=on_log(as_sse(events), garbage, last=False))
    assert (await run.go(job(attempt=2)))["status"] == "failed"


@pytest.mark.parametrize("told", [0, 2, 5])
async def test_giving_up_ends_a_stream_after_what_was_told(told: int) -> None:
    run = Run(Upstream("a"))
    run.out.write(as_sse(ours(script_events("say: one two three"))[:told]))
    await run.runner.give_up(job(), run.out)
    response = run.outcome()
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    check_stream(run.out.events)
    assert kinds(run.out.events)[-1] == "failed"


async def test_giving_up_answers_a_json_client_with_500() -> None:
    run = Run(Upstream("a"))
    await run.runner.give_up(job(stream=False), run.out)
    status, body = run.answer
    assert (status, body["error"]["code"]) == (500, "server_error")


async def test_giving_up_what_is_finished_only_states_it() -> None:
    run = Run(Upstream("a"))
    run.out.write(as_sse(ours(script_events("say: hello"))), flags=Flag.LAST)
    await run.runner.give_up(job(), run.out)
    assert run.outcome()["status"] == "completed"
    assert len(run.out.parts) == 1
