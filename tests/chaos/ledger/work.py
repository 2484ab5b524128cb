"""Rule 2: models and tools were not asked again behind anybody's back."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import inf

from tests.chaos.ledger.evidence import Call, Evidence, Execution, Report, ToolResult
from tests.chaos.load.log import Asked

SLACK_S = 0.25
"""Between a moment at one process and the same moment at another one."""
MAX_CALLS = 12
"""Calls of one turn, whatever dies: attempts of the worker times tries at the provider."""


def check_calls(evidence: Evidence, report: Report) -> None:
    """Calls of the upstream are within the promise, for every request that it saw."""
    by_mark = evidence.calls_by_mark()
    ids: dict[str, list[str]] = defaultdict(list)
    for name, asked in evidence.known().items():
        if asked is not None:
            ids[asked.mark].append(name)
    asked_by_mark = {asked.mark: asked for asked in evidence.asked}
    report.count("upstream calls", len(evidence.calls))
    for mark, calls in by_mark.items():
        if mark not in ids:
            report.violate("calls", mark, "the upstream was asked, but nothing was accepted")
            continue
        # Several under one key, the earlier of which failed: the calls are those of all.
        response_id = max(ids[mark], key=lambda one: _ended(evidence, one))
        outcome = evidence.outcome(response_id)
        # One that was closed before it gave anything was on its way when the end came.
        late = [
            call
            for call in calls
            if outcome and call.at > outcome.at + SLACK_S and (call.finished or call.events)
        ]
        for call in late:
            assert outcome is not None
            after = call.at - outcome.at
            sentence = f"turn {call.turn} was asked {after:.2f} s after it was {outcome.status}"
            report.violate("calls", response_id, sentence)
        _turns(response_id, calls, asked_by_mark[mark], report)
    for response_id, asked in evidence.known().items():
        outcome = evidence.outcome(response_id)
        if asked is None or outcome is None or outcome.status != "completed":
            continue
        if not any(call.finished for call in by_mark.get(asked.mark, ())):
            report.violate("calls", response_id, "it completed without a finished upstream call")


def _ended(evidence: Evidence, response_id: str) -> float:
    outcome = evidence.outcome(response_id)
    return outcome.at if outcome is not None else inf


def _turns(response_id: str, calls: list[Call], asked: Asked, report: Report) -> None:
    by_turn: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        by_turn[call.turn].append(call)
    for turn, again in by_turn.items():
        report.count("model turns")
        report.count("model turns asked again", len(again) - 1)
        finished = [call for call in again if call.finished and call.status == 200]
        report.count("finished model turns asked again", max(0, len(finished) - 1))
        if len(again) > MAX_CALLS:
            sentence = f"turn {turn} was asked {len(again)} times, at most {MAX_CALLS} are promised"
            report.violate("calls", response_id, sentence)
        later = [call.at for call in calls if call.turn > turn]
        repeated = [call for call in again if later and call.at > min(later) + SLACK_S]
        for call in repeated:
            sentence = f"turn {turn} was asked again {call.at - min(later):.2f} s after a later one"
            report.violate("checkpoint", response_id, sentence)
    heard = asked.heard
    if heard is None or heard.first_delta_at is None or asked.body.get("background"):
        return
    last = max(by_turn)
    for call in by_turn[last]:
        if call.at > heard.first_delta_at + SLACK_S:
            after = call.at - heard.first_delta_at
            sentence = f"it was generated again {after:.2f} s after its first words were delivered"
            report.violate("calls", response_id, sentence)


def check_tools(evidence: Evidence, report: Report) -> None:
    """No finished tool call is run again, and everybody sees the same result of it."""
    asked_by_mark = {asked.mark: asked for asked in evidence.asked}
    ids = {asked.mark: name for name, asked in evidence.known().items() if asked is not None}
    runs: dict[str, list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        runs[execution.key].append(execution)
    results = _results(evidence, report)
    report.count("tool runs", len(evidence.executions))
    for key, executions in runs.items():
        response_id = ids.get(key.split("/", 1)[0], key)
        report.count("tool calls run again", len(executions) - 1)
        report.count("tool runs killed", sum(run.ended is None for run in executions))
        told = results.get((response_id, key))
        late = [run for run in executions if told and run.begun > told.at + SLACK_S]
        for run in late:
            assert told is not None
            sentence = f"{key} was run again {run.begun - told.at:.2f} s after its result was told"
            report.violate("tools", response_id, sentence)
        if told and told.error is None and told.output not in {_output(run) for run in executions}:
            sentence = f"the result {told.output!r} of {key} is of no run"
            report.violate("tools", response_id, sentence)
    _seen_by_model(evidence, ids, report)
    for mark, asked in asked_by_mark.items():
        _rounds(evidence, asked, ids.get(mark), runs, report)


def _output(run: Execution) -> str:
    return f"{run.key}#{run.execution}"


def _results(evidence: Evidence, report: Report) -> dict[tuple[str, str], ToolResult]:
    """Return the first result of each (response, key), after holding all of a call together."""
    by_call: dict[str, list[ToolResult]] = defaultdict(list)
    for result in sorted(evidence.results, key=lambda result: result.at):
        by_call[result.call_id].append(result)
    found: dict[tuple[str, str], ToolResult] = {}
    for call_id, told in by_call.items():
        outputs = Counter((result.output, result.error) for result in told)
        if len(outputs) > 1:
            sentence = f"the call {call_id} has different results: {list(outputs)}"
            report.violate("tools", told[0].response_id, sentence)
        key = told[0].output.split("#", 1)[0]
        found.setdefault((told[0].response_id, key), told[0])
    return found


def _seen_by_model(evidence: Evidence, ids: dict[str, str], report: Report) -> None:
    """What the model was given is what the executor recorded, in every call of every turn."""
    recorded: dict[str, set[str]] = defaultdict(set)
    for result in evidence.results:
        recorded[result.response_id].add(result.output)
    for call in evidence.calls:
        response_id = ids.get(call.mark, call.mark)
        for output in call.outputs:
            if "#" in output and output not in recorded[response_id]:
                sentence = f"the model was given {output!r}, which no result says"
                report.violate("tools", response_id, sentence)


def _rounds(
    evidence: Evidence,
    asked: Asked,
    response_id: str | None,
    runs: dict[str, list[Execution]],
    report: Report,
) -> None:
    """A completed loop of tools has run each of its calls and tells its result."""
    outcome = evidence.outcome(response_id) if response_id else None
    if not asked.rounds or outcome is None or outcome.status != "completed":
        return
    assert response_id is not None
    items = (outcome.response or {}).get("output") or []
    calls = [item for item in items if item.get("type") == "mcp_call"]
    if len(calls) != asked.rounds:
        sentence = f"expected {asked.rounds} calls of tools in the output, found {len(calls)}"
        report.violate("tools", response_id, sentence)
    for number, item in enumerate(calls):
        key = f"{asked.mark}/{number}"
        report.count("tool calls told as failed", item.get("output") is None)
        told = {_output(run) for run in runs.get(key, ())}
        if item.get("output") is not None and item["output"] not in told:
            sentence = f"its output tells {item['output']!r}, runs of {key} gave {sorted(told)}"
            report.violate("tools", response_id, sentence)
