"""Each rule of the check after a run of chaos finds what it is there for, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import orjson
import pytest

from tests.chaos.ledger.evidence import (
    Call,
    Command,
    Evidence,
    Execution,
    Lease,
    Read,
    Row,
    ToolResult,
    turn_of,
)
from tests.chaos.load.log import Heard
from tests.unit.chaos.books import (
    ID,
    INTAKES,
    KEY,
    MARK,
    RESULT,
    asked,
    fact,
    good,
    line,
    lines,
    picture,
    response,
    violations,
)

OTHER = response(output=[])
BACKGROUND = {"input": MARK, "background": True}


def row(told: object, status: str = "completed") -> dict[str, Row]:
    return {ID: Row(ID, status, orjson.dumps(told).decode(), deleted=False)}


def reads(*told: tuple[int, dict[str, object]]) -> dict[str, list[Read]]:
    return {ID: [Read(i, *one) for i, one in zip(INTAKES, told, strict=True)]}


SECOND_CALL = Call(MARK, 1, 102.5, 103.5, outputs=(RESULT,))
FIRST_CALL = Call(MARK, 0, 100.5, 101.0)
RUN = Execution(KEY, "e1", 101.5, 101.8)
TOOL_RESULT = ToolResult("call_1", ID, RESULT, None, 102.0)

SPOILT: dict[str, tuple[Evidence, str]] = {
    "a lost response": (good(facts={}), "expected one terminal fact, found none"),
    "an id without a command": (good(commands=[]), "it has no command"),
    "two outcomes": (
        good(facts={ID: [fact(), fact(attempt=2, digest="e")]}),
        "expected one terminal fact, found completed of attempt 1, completed of attempt 2",
    ),
    "a fact of nobody": (
        good(facts={ID: [fact()], "resp_2": [fact(response_id="resp_2")]}),
        "resp_2: it ended, but nobody asked for it",
    ),
    "no row": (good(rows={}), "expected a row in intake.responses"),
    "a row that is not done": (good(rows=row(response(), "queued")), "found queued"),
    "a row that tells otherwise": (good(rows=row(OTHER)), "the row is not the fact's"),
    "an intake that does not know": (
        good(reads=reads((200, response()), (404, {}))),
        "from GET at http://two, found 404",
    ),
    "intakes that differ": (
        good(reads=reads((200, response()), (200, OTHER))),
        "intakes tell it differently: .output",
    ),
    "a client that was told otherwise": (
        good(asked=[asked(answer=OTHER)]),
        "the client was told otherwise than the fact says: .output",
    ),
    "a doubled event": (
        good(asked=[asked(heard=Heard([0, 1, 1, 2], {(2, 0): ["w0 w1"]}))]),
        "expected number 2 at place 2",
    ),
    "a missing delta": (
        good(asked=[asked(heard=Heard([0, 1, 2, 3], {(2, 0): ["w0"]}))]),
        "deltas at (2, 0) give 'w0'",
    ),
    "deltas of no text": (
        good(asked=[asked(heard=Heard([0, 1], {(2, 0): ["w0 w1"], (3, 0): ["w2"]}))]),
        "deltas at (3, 0) are in no text",
    ),
    "a client that hangs": (good(asked=[asked(outcome="hung", told="silent")]), "hung: resp_1"),
    "a client that complains": (good(asked=[asked(problems=["no"])]), "client: no"),
    "another id for one key": (good(asked=[asked(other_ids={"resp_2"})]), "told other ids"),
    "two responses to one request": (
        good(
            commands=[Command(ID, MARK, 100.0), Command("resp_2", MARK, 100.0)],
            facts={ID: [fact()], "resp_2": [fact(response_id="resp_2")]},
        ),
        "one request has several responses: ['resp_1', 'resp_2']",
    ),
    "a delete that was forgotten": (
        good(asked=[asked(deleted=True)]),
        "the client deleted it, but no fact says so",
    ),
    "a deleted response that is still told": (good(deleted={ID}), "expected 404 everywhere"),
    "a call after the end": (
        good(calls=[FIRST_CALL, SECOND_CALL, Call(MARK, 1, 105.0, 106.0)]),
        "turn 1 was asked 1.00 s after it was completed",
    ),
    "words that are generated again": (
        good(calls=[FIRST_CALL, SECOND_CALL, Call(MARK, 1, 103.6, 103.9)]),
        "generated again 0.60 s after its first words",
    ),
    "a turn repeated after its checkpoint": (
        good(calls=[FIRST_CALL, SECOND_CALL, Call(MARK, 0, 103.0, 103.2)]),
        "turn 0 was asked again 0.50 s after a later one",
    ),
    "a turn asked too often": (
        good(calls=[FIRST_CALL] * 13 + [SECOND_CALL]),
        "turn 0 was asked 13 times",
    ),
    "an answer from nowhere": (good(calls=[]), "it completed without a finished upstream call"),
    "a call for nobody": (
        good(calls=[FIRST_CALL, SECOND_CALL, Call("mark00000000-1", 0, 100.0)]),
        "the upstream was asked, but nothing was accepted",
    ),
    "a tool that is run again": (
        good(executions=[RUN, Execution(KEY, "e2", 103.0, 103.2)]),
        "was run again 1.00 s after its result was told",
    ),
    "two results of one call": (
        good(results=[TOOL_RESULT, replace(TOOL_RESULT, output=f"{KEY}#e2")]),
        "has different results",
    ),
    "a result of no run": (good(executions=[Execution(KEY, "e9", 1, 2)]), "is of no run"),
    "a model that is given something else": (
        good(calls=[FIRST_CALL, replace(SECOND_CALL, outputs=(f"{KEY}#e7",))]),
        "which no result says",
    ),
    "a round that is missing": (good(asked=[asked(rounds=2)]), "expected 2 calls of tools"),
    "a lost line": (
        good(lines_kept=lines()[1:], lines_told=lines()[1:]),
        "expected 10 of input_tokens, charged are 0",
    ),
    "a doubled line": (
        good(lines_kept=[*lines(), line("output_tokens", 4, line_id="again")]),
        "units are charged twice",
    ),
    "a wrong amount": (
        good(lines_kept=[line("input_tokens", 10, cost_usd=Decimal(1)), *lines()[1:]]),
        "charged are 1",
    ),
    "two prices": (
        good(lines_kept=[line("output_tokens", 4, unit_price_usd=Decimal(2)), *lines()]),
        "has several prices",
    ),
    "a tool that is not charged": (good(lines_kept=lines()[:2]), "found []"),
    "a fact without its row": (
        good(lines_told=[*lines(), line("requests", 1)]),
        "is on costs.recorded, but not in the ledger",
    ),
    "a row without its fact": (
        good(lines_told=lines()[:3]),
        "is in the ledger, but not on costs.recorded",
    ),
    "a fact that tells otherwise": (
        good(lines_told=[replace(lines()[0], quantity=9), *lines()[1:]]),
        "the fact tells",
    ),
    "a report that is off": (good(costs_reported=Decimal(7)), "found 7"),
    "a charge for nobody": (
        good(lines_kept=[*lines(), line("output_tokens", 1, response_id="resp_9", line_id="x")]),
        "it is charged, but was never accepted",
    ),
    "a lost artifact": (good(artifacts=[]), "expected one artifact"),
    "damaged bytes": (good(artifacts=[picture(content_sha256="0")]), "has other bytes"),
    "an artifact that can't be had": (good(artifacts=[picture(status=500)]), "gives 500"),
    "an artifact of nothing": (good(asked=[asked(image=None)]), "nothing refers to ['art_1']"),
    "an orphan lease": (
        good(leases=[Lease(ID, "running", 2, "w")]),
        "its lease is still running (attempt 2, 'w')",
    ),
    "a checkpoint": (good(checkpoints=[ID]), "a checkpoint is left"),
    "an open tool call": (good(open_tool_calls=["call_1"]), "still open in mcp_broker.calls"),
    "a dead letter": (good(dead_letters={"a.dlq": ["offset 1: no"]}), "a.dlq: offset 1: no"),
    "work that does not end": (good(not_drained=["costs is 3 behind"]), "costs is 3 behind"),
    "a webhook that did not come": (
        good(asked=[asked(body=BACKGROUND)]),
        "expected the webhook response.completed, found none",
    ),
}


def test_a_run_in_which_everything_fits_has_no_violations() -> None:
    assert violations(good()) == []


@pytest.mark.parametrize("case", SPOILT)
def test_what_must_not_be_is_found(case: str) -> None:
    evidence, expected = SPOILT[case]
    found = violations(evidence)
    assert any(expected in sentence for sentence in found), found


def test_what_duplicates_and_crashes_may_cause_is_no_violation() -> None:
    assert (
        violations(good(facts={ID: [fact(), fact()]}, commands=[Command(ID, MARK, 1.0)] * 2)) == []
    )
    assert violations(good(lines_told=lines() * 2)) == []
    # A worker that died before anything was delivered asks again; so does a broker that died.
    again = [Call(MARK, 0, 100.1, None, finished=False), FIRST_CALL, SECOND_CALL]
    assert violations(good(calls=again)) == []
    # A call that was on its way when its response ended, and was closed at once.
    closed = Call(MARK, 0, 104.9, 105.0, status=0, finished=False)
    assert not any("asked 0.90 s after" in one for one in violations(good(calls=[*again, closed])))
    killed = Execution(KEY, "e0", 101.1, None)
    assert violations(good(executions=[killed, RUN])) == []


def test_a_key_is_free_again_after_a_failure_and_all_calls_count_together() -> None:
    earlier = "resp_0"
    told = response(id=earlier, status="failed", output=[], usage=None)
    failed = fact(response_id=earlier, status="failed", at=100.4, response=told)
    found = good(
        commands=[Command(earlier, MARK, 100.0), Command(ID, MARK, 100.4)],
        facts={earlier: [failed], ID: [fact()]},
        calls=[Call(MARK, 0, 100.1, 100.3, status=503), FIRST_CALL, SECOND_CALL],
    )
    found.rows[earlier] = Row(earlier, "failed", orjson.dumps(told).decode(), deleted=False)
    found.reads[earlier] = [Read(intake, 200, told) for intake in INTAKES]
    assert violations(found) == []


def test_output_without_usage_has_a_line_without_a_price() -> None:
    told = response(usage=None)
    reason = "the provider reported no usage"
    unpriced = line("output_tokens", 0, unit_price_usd=None, cost_usd=None, unpriced_reason=reason)
    priced = line("output_tokens", 4, response_id="resp_2", line_id="resp_2:output_tokens")
    one = good(
        asked=[asked(answer=told)],
        facts={ID: [fact(response=told)]},
        rows=row(told),
        reads=reads((200, told), (200, told)),
        lines_kept=[unpriced, *lines()[2:]],
        lines_told=[unpriced, *lines()[2:]],
    )
    one.costs_reported = sum((kept.cost_usd or Decimal(0) for kept in one.lines_kept), Decimal(0))
    assert violations(one) == []
    both = replace(one, lines_kept=[*one.lines_kept, priced])
    assert not any("several prices" in sentence for sentence in violations(both))
    assert violations(replace(one, lines_kept=lines()[2:], lines_told=lines()[2:]))


def test_what_was_deleted_is_nowhere_and_still_charged() -> None:
    gone = good(
        deleted={ID},
        asked=[asked(deleted=True)],
        reads=reads((404, {}), (404, {})),
        rows={ID: Row(ID, "completed", None, deleted=True)},
        artifacts=[],
    )
    assert violations(gone) == []
    assert violations(replace(gone, lines_kept=[]))


def test_what_was_cancelled_while_it_ended_stays_cancelled_for_its_owner() -> None:
    told = response(status="cancelled", output=[], usage=None)
    stopped = asked(kind="cancelled", answer=told, heard=None, rounds=0)
    row = Row(ID, "cancelled", None, deleted=False)
    found = good(asked=[stopped], rows={ID: row}, reads=reads((200, told), (200, told)))
    assert violations(found) == []
    assert violations(replace(found, asked=[asked(answer=told, heard=None)]))


def test_a_background_response_is_told_to_its_endpoint() -> None:
    one = asked(body=BACKGROUND)
    assert violations(good(asked=[one], webhooks={ID: {"response.completed"}})) == []


def test_a_call_is_joined_by_the_last_words_of_the_user() -> None:
    older, newer = "mark00000000-1", "mark00000000-2"
    items = [
        {"role": "user", "content": older},
        {"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "input_text", "text": f"{newer}\nsay: it"}]},
        {"type": "function_call", "call_id": "c", "name": "count", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "one"},
    ]
    assert turn_of({"input": items}) == (newer, 1, ("one",))
    assert turn_of({"input": items[:1]}) == (older, 0, ())
    assert turn_of({"input": newer}) == (newer, 0, ())
    told = [{"role": "user", "content": older}, {"role": "tool", "content": "two"}]
    assert turn_of({"messages": told}) == (older, 1, ("two",))
