"""Rules 1 and 7: what was accepted ended once, all tell the same end, and no client hangs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson

from tests.chaos.ledger.evidence import Evidence, Fact, Json, Read, Report
from tests.chaos.load.log import Asked

_NOT_FOUND = 404


def check_outcomes(evidence: Evidence, report: Report) -> None:
    """Every accepted response is terminal, once, and as the client was told."""
    known = evidence.known()
    on_log = {command.response_id for command in evidence.commands}
    report.count("accepted", len(known))
    for response_id, asked in known.items():
        if response_id not in on_log:
            report.violate("accepted", response_id, "its id was told, but it has no command")
        facts = evidence.facts.get(response_id, [])
        outcome = evidence.outcome(response_id)
        if outcome is None:
            report.violate(
                "accepted = terminal",
                response_id,
                f"expected one terminal fact, found none; {_seen(asked)}",
            )
            continue
        report.count(f"ended {outcome.status}")
        _agree(facts, outcome, report)
        _stored(evidence, response_id, outcome, asked, report)
        if asked is not None and asked.response_id == response_id:
            _told(asked, outcome, report)
    for response_id in evidence.facts.keys() - known.keys():
        report.violate("accepted", response_id, "it ended, but nobody asked for it")


def check_clients(evidence: Evidence, report: Report) -> None:
    """No client hung, none complained, and one key has one response."""
    for asked in evidence.asked:
        report.count(f"asked {asked.kind}")
        report.count(f"clients saw {asked.outcome}")
        for problem in asked.problems:
            report.violations.append(f"client: {problem}")
        name = asked.response_id or asked.mark
        if asked.outcome == "hung":
            report.violate(
                "hung", name, f"a client of {asked.kind} at {asked.intake}: {asked.told}"
            )
        if asked.other_ids:
            report.violate("one id", name, f"the client was told other ids: {asked.other_ids}")
        if asked.heard is not None:
            _contiguous(asked, report)
            report.count("streams resumed", max(0, asked.heard.connections - 1))
    if len({asked.mark for asked in evidence.asked}) == len(evidence.asked):
        _one_each(evidence, report)


def _one_each(evidence: Evidence, report: Report) -> None:
    """A request has one response; further ones only after those that failed.

    A key whose response failed with 429 or 503 is free again, as the API says.
    """
    ids: dict[str, set[str]] = {}
    for command in evidence.commands:
        if command.mark is not None:
            ids.setdefault(command.mark, set()).add(command.response_id)
    for mark, found in ids.items():
        outcomes = {one: evidence.outcome(one) for one in sorted(found)}
        lasting = [one for one, fact in outcomes.items() if fact is None or fact.status != "failed"]
        report.count("responses to a key that was free again", len(found) - 1)
        if len(lasting) > 1:
            report.violate("one id", mark, f"one request has several responses: {lasting}")
    told = {asked.mark for asked in evidence.asked if asked.response_id is not None}
    report.count("accepted without the client's knowing", len(ids.keys() - told))


def _agree(facts: list[Fact], outcome: Fact, report: Report) -> None:
    others = {fact.digest for fact in facts} - {outcome.digest}
    if others:
        told = ", ".join(f"{fact.status} of attempt {fact.attempt}" for fact in facts)
        report.violate(
            "one outcome", outcome.response_id, f"expected one terminal fact, found {told}"
        )
    report.count("terminal facts repeated", len(facts) - 1)


def _stored(
    evidence: Evidence, response_id: str, outcome: Fact, asked: Asked | None, report: Report
) -> None:
    """The projection and every intake tell the terminal state of the fact."""
    row = evidence.rows.get(response_id)
    reads = evidence.reads.get(response_id, [])
    gone = response_id in evidence.deleted or not outcome.store
    if gone:
        told = [read for read in reads if read.status != _NOT_FOUND]
        if told:
            found = f"{told[0].intake} answers {told[0].status}"
            report.violate("deleted", response_id, f"expected 404 everywhere, {found}")
        return
    if asked is not None and asked.deleted:
        report.violate("deleted", response_id, "the client deleted it, but no fact says so")
    if _was_stopped(asked) and row is not None and row.status == "cancelled" != outcome.status:
        # The worker was told too late; what the owner was told then stays.
        report.count("cancelled while it ended")
        outcome = replace(outcome, status="cancelled", response=None)
    if row is None:
        report.violate("projection", response_id, "expected a row in intake.responses, found none")
    elif row.status != outcome.status:
        expected = f"expected the status {outcome.status} in intake.responses"
        report.violate("projection", response_id, f"{expected}, found {row.status}")
    elif row.response is None and outcome.response is not None:
        report.violate("projection", response_id, "its row has no Response object")
    _read_alike(response_id, reads, outcome, row.response if row else None, report)


def _read_alike(
    response_id: str, reads: list[Read], outcome: Fact, row: str | None, report: Report
) -> None:
    for read in reads:
        body = read.body or {}
        if read.status != 200 or body.get("status") != outcome.status:
            found = f"{read.status} {body.get('status')}"
            expected = f"expected {outcome.status} from GET at {read.intake}"
            report.violate("accepted = terminal", response_id, f"{expected}, found {found}")
    bodies = [read.body for read in reads if read.status == 200]
    if any(one != other for one, other in pairwise(bodies)):
        where = difference(bodies[0], next(b for b in bodies if b != bodies[0]))
        report.violate("accepted = terminal", response_id, f"intakes tell it differently: {where}")
    if row is not None and bodies and bodies[0] != (stored := orjson.loads(row)):
        where = difference(stored, bodies[0])
        report.violate("projection", response_id, f"the API tells it otherwise: {where}")
    if row is not None and outcome.response is not None:
        stored = orjson.loads(row)
        if stored != outcome.response:
            where = difference(outcome.response, stored)
            report.violate("projection", response_id, f"the row is not the fact's: {where}")


def _told(asked: Asked, outcome: Fact, report: Report) -> None:
    """What the client was told last is what the fact says."""
    if _was_stopped(asked) and asked.answer is not None and asked.answer["status"] == "cancelled":
        return
    if asked.answer is None or outcome.response is None:
        if asked.answer is not None and asked.answer["status"] != outcome.status:
            found = f"told {asked.answer['status']}, the fact says {outcome.status}"
            report.violate("told = stored", outcome.response_id, f"the client was {found}")
        return
    if asked.answer != outcome.response:
        where = difference(outcome.response, asked.answer)
        sentence = f"the client was told otherwise than the fact says: {where}"
        report.violate("told = stored", outcome.response_id, sentence)
    heard = asked.heard
    if heard is None:
        return
    for place, text in _texts(outcome.response).items():
        said = heard.text(place)
        if said != text:
            sentence = f"deltas at {place} give {said[-60:]!r} ({len(said)} characters), the text"
            report.violate(
                "deltas = text", outcome.response_id, f"{sentence} is {text[-60:]!r} ({len(text)})"
            )
    for place in heard.deltas.keys() - _texts(outcome.response).keys():
        report.violate("deltas = text", outcome.response_id, f"deltas at {place} are in no text")


def _was_stopped(asked: Asked | None) -> bool:
    """Whether its client may have cancelled it, also when the answer to that was lost."""
    return asked is not None and (asked.cancelled or asked.kind == "cancelled")


def _contiguous(asked: Asked, report: Report) -> None:
    assert asked.heard is not None
    numbers = asked.heard.numbers
    if numbers == list(range(len(numbers))):
        return
    wrong = next(place for place, number in enumerate(numbers) if number != place)
    name = asked.response_id or asked.mark
    after = numbers[max(0, wrong - 3) : wrong + 3]
    report.violate("sequence", name, f"expected number {wrong} at place {wrong}, found {after}")


def _texts(response: Json) -> dict[tuple[int, int], str]:
    return {
        (index, part): content["text"]
        for index, item in enumerate(response.get("output") or ())
        if item.get("type") == "message"
        for part, content in enumerate(item.get("content") or ())
        if content.get("type") == "output_text" and content["text"]
    }


def _seen(asked: Asked | None) -> str:
    if asked is None:
        return "its command is not of this load"
    end = asked.answer["status"] if asked.answer else asked.outcome
    return f"a client of {asked.kind} saw {end} {asked.told}".strip()


def difference(expected: Any, found: Any, path: str = "") -> str:
    """Return where two JSON values differ first, and how."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                return difference(expected.get(name), found.get(name), f"{path}.{name}")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one != other:
                return difference(one, other, f"{path}[{place}]")
    return f"{path or 'it'}: expected {str(expected)[:120]!r}, found {str(found)[:120]!r}"
