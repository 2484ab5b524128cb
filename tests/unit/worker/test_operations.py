"""Operations come to one end each: asked once, answered once, stated once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from contracts.operations import CompactConversationV1, CountInputTokensV1
from contracts.packs import Entry, Flag
from contracts.responses import RunResponseV1
from services.kit.seal import Sealer
from services.worker.domain import Job
from services.worker.errors import LeaseLostError, UpstreamError
from services.worker.operations.answers import Answers
from services.worker.operations.runner import OperationRunner
from services.worker.outbox import OutStream
from services.worker.providers.guard import Guard
from services.worker.runs.recovery import Delivered
from services.worker.seals import ItemSeals
from tests.unit.worker.runs import (
    FixedClock,
    LocalTools,
    Provider,
    ScriptedTurns,
    StatedFacts,
    Written,
    config,
    ids,
    job,
    text_turn,
)

LATER = UpstreamError("not now", status=503, retry_after_seconds=0.001)
NEVER = UpstreamError("no such thing", status=400, param="input", retryable=False)
COUNTED = {"object": "response.input_tokens", "input_tokens": 5}
USAGE = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
COMPACTED: dict[str, Any] = {"id": "resp_theirs", "output": [], "usage": USAGE}


class Vendor:
    """A native provider that gives the answers it was made with."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def count_input_tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, UpstreamError):
            raise answer
        return dict(answer)

    compact = count_input_tokens


class Upstream:
    def __init__(self, name: str, *answers: Any, chat: bool = False, retries: int = 0) -> None:
        self.config = config(name, "chat" if chat else "responses", retries=retries)
        self.client = Provider(list(answers), self.config)
        self.client.guard = Guard(self.config)
        self.turns = ScriptedTurns(list(answers))
        self.vendor = Vendor(*answers)


class Responses:
    """The runner of responses, which remembers what it was given."""

    def __init__(self) -> None:
        self.ran: list[Job] = []
        self.sure = 100

    async def run(self, job: Job, out: OutStream) -> None:
        self.ran.append(job)

    async def give_up(self, job: Job, out: OutStream) -> None:
        self.ran.append(job)

    async def make_sure(self, job: Job) -> None:
        if self.sure == 0:
            raise LeaseLostError(job.response_id)
        self.sure -= 1


class Run:
    def __init__(
        self, *upstreams: Upstream, earlier: Delivered | None = None, secret: str = "secret"
    ) -> None:
        self.out = Written()
        self.facts = StatedFacts()
        self.responses = Responses()
        self._earlier = earlier or Delivered()
        native = {u.config.name: u.vendor for u in upstreams if u.config.dialect == "responses"}
        seals = ItemSeals(Sealer([secret]))
        self.runner = OperationRunner(
            responses=self.responses,
            answers=Answers(dict(native), LocalTools(), seals, FixedClock(), ids()),
            upstreams=lambda _: upstreams,
            facts=self.facts,
            clock=FixedClock(),
            read_back=self._read_back,
        )

    async def _read_back(self, _: Job) -> Delivered:
        return self._earlier

    @property
    def answer(self) -> tuple[int, dict[str, Any]]:
        (part,) = self.out.parts
        flags, status, payload = part
        assert flags == Flag.LAST | Flag.JSON
        return status, orjson.loads(payload)


def of(contract: type[RunResponseV1], *, attempt: int = 1, **request: Any) -> Job:
    given = job(stream=False, attempt=attempt, **request)
    fields = {**given.command.model_dump(), "store": False}
    return replace(given, command=contract.model_validate(fields))


async def test_a_response_is_left_to_the_runner_of_responses() -> None:
    run, given = Run(), job()

    await run.runner.run(given, run.out)
    await run.runner.give_up(given, run.out)

    assert run.responses.ran == [given, given]


async def test_a_native_provider_counts_for_nothing() -> None:
    upstream = Upstream("first", COUNTED)
    run = Run(upstream)

    await run.runner.run(of(CountInputTokensV1), run.out)

    assert run.answer == (200, COUNTED)
    assert upstream.vendor.asked == [{"model": "gpt-5.1", "input": "hello"}]
    assert not run.facts.outcomes


async def test_a_native_compaction_gets_our_id_and_is_stated_once_it_is_told() -> None:
    run = Run(Upstream("first", COMPACTED))

    await run.runner.run(of(CompactConversationV1), run.out)

    assert run.answer == (200, {**COMPACTED, "id": "resp_ours"})
    ((fact, body),) = run.facts.outcomes
    assert (fact.provider, fact.store, fact.status) == ("first", False, "completed")
    assert body["usage"] == USAGE
    assert run.out.waited == 1


@pytest.mark.parametrize("sure", [0, 1])
async def test_a_compaction_that_another_attempt_has_by_now_is_not_asked_for_or_not_stated(
    sure: int,
) -> None:
    upstream = Upstream("first", COMPACTED)
    run = Run(upstream)
    run.responses.sure = sure

    with pytest.raises(LeaseLostError):
        await run.runner.run(of(CompactConversationV1), run.out)

    assert len(upstream.vendor.asked) == sure
    assert not run.facts.outcomes


async def test_another_try_and_then_another_provider_are_asked() -> None:
    first, second = Upstream("first", LATER, LATER, retries=1), Upstream("second", COUNTED)
    run = Run(first, second)

    await run.runner.run(of(CountInputTokensV1), run.out)

    assert run.answer == (200, COUNTED)
    assert (len(first.vendor.asked), len(second.vendor.asked)) == (2, 1)


async def test_a_failure_is_told_and_states_nothing() -> None:
    run = Run(Upstream("first", NEVER))

    await run.runner.run(of(CompactConversationV1), run.out)

    status, body = run.answer
    assert (status, body["error"]["param"]) == (400, "input")
    assert not run.facts.outcomes


def told(body: dict[str, Any]) -> Delivered:
    payload = orjson.dumps(body)
    seen = Delivered()
    seen.feed(Entry(b"resp_ours", 1, 0, payload, Flag.LAST | Flag.JSON, 200), payload)
    return seen


async def test_what_an_earlier_attempt_told_is_stated_again_but_not_asked_again() -> None:
    upstream = Upstream("first")
    run = Run(upstream, earlier=told({**COMPACTED, "object": "response.compaction"}))

    await run.runner.run(of(CompactConversationV1, attempt=2), run.out)

    assert not upstream.vendor.asked
    assert not run.out.parts
    ((fact, _),) = run.facts.outcomes
    assert fact.attempt == 2


@pytest.mark.parametrize("body", [COUNTED, NEVER.body()])
async def test_an_earlier_answer_that_cost_nothing_is_stated_by_nobody(
    body: dict[str, Any],
) -> None:
    run = Run(Upstream("first"), earlier=told(body))

    await run.runner.run(of(CountInputTokensV1, attempt=2), run.out)
    await run.runner.give_up(of(CountInputTokensV1, attempt=9), run.out)

    assert not run.out.parts
    assert not run.facts.outcomes


async def test_an_operation_that_is_given_up_ends_with_an_error() -> None:
    run = Run(Upstream("first"))

    await run.runner.give_up(of(CompactConversationV1, attempt=9), run.out)

    assert run.answer[0] == 500
    assert not run.facts.outcomes


async def test_a_chat_model_s_summary_keeps_what_the_user_said() -> None:
    upstream = Upstream("first", text_turn("They like cats."), chat=True)
    run = Run(upstream)
    said = [
        {"role": "user", "content": "I like cats."},
        {"role": "assistant", "content": "So do I."},
    ]

    await run.runner.run(of(CompactConversationV1, input=said), run.out)

    status, body = run.answer
    assert status == 200
    assert [item["type"] for item in body["output"]] == ["message", "compaction"]
    assert body["output"][0]["content"] == [{"type": "input_text", "text": "I like cats."}]
    assert len(run.facts.outcomes) == 1


async def test_without_a_secret_a_chat_model_is_not_asked_for_a_summary() -> None:
    run = Run(Upstream("first", text_turn("lost"), chat=True), secret="")

    await run.runner.run(of(CompactConversationV1), run.out)

    status, body = run.answer
    assert (status, body["error"]["code"]) == (400, "unsupported_operation")


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_half_a_summary_is_none(status: str) -> None:
    turn = text_turn("They li")
    turn[-1] = replace(turn[-1], status=status, error={"code": "server_error", "message": "no"})
    run = Run(Upstream("first", turn, chat=True))

    await run.runner.run(of(CompactConversationV1), run.out)

    assert run.answer[0] == 502
    assert not run.facts.outcomes
