"""Rule 3: what was used is charged, once, at the price; nothing is lost and nothing doubled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal

from tests.chaos.ledger.evidence import Evidence, Fact, Json, Line, Report

_SCALE = Decimal("1e-12")
_INPUT = ("input_tokens", "cached_input_tokens", "cache_write_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens")
_NEVER_RAN = frozenset({"unknown_server", "unknown_tool", "invalid_arguments", "unavailable"})
_HOSTED = frozenset({"code_interpreter_call", "image_generation_call", "web_search_call"})


def check_costs(evidence: Evidence, report: Report) -> None:
    """Cost lines are those of the terminal facts and of the tools' results."""
    kept: dict[str, list[Line]] = defaultdict(list)
    for line in evidence.lines_kept:
        kept[line.response_id].append(line)
    report.count("cost lines", len(evidence.lines_kept))
    known = evidence.known()
    for response_id in known:
        outcome = evidence.outcome(response_id)
        if outcome is not None and outcome.response is not None:
            _tokens(outcome, kept.get(response_id, []), report)
    for response_id in kept.keys() - known.keys():
        report.violate("costs", response_id, "it is charged, but was never accepted")
    _tool_calls(evidence, kept, report)
    _prices(evidence.lines_kept, report)
    _told(evidence, report)
    total = sum((line.cost_usd or Decimal(0) for line in evidence.lines_kept), Decimal(0))
    if evidence.costs_reported is not None and evidence.costs_reported != total:
        sentence = f"expected {total} USD from GET /v1/costs, found {evidence.costs_reported}"
        report.violate("costs", "all", sentence)


def _tokens(outcome: Fact, lines: list[Line], report: Report) -> None:
    """The quantities are those of the usage that the fact tells."""
    response = outcome.response or {}
    usage = response.get("usage")
    tokens = [line for line in lines if line.tool is None]
    units = [line.unit for line in tokens]
    if len(set(units)) != len(units):
        report.violate("costs", outcome.response_id, f"units are charged twice: {sorted(units)}")
    if usage is None:
        if outcome.status in ("completed", "incomplete") or response.get("output"):
            if not tokens:
                report.violate("costs", outcome.response_id, "output without usage has no line")
        elif tokens:
            report.violate("costs", outcome.response_id, f"nothing was used, charged are {units}")
        return
    for names, total in ((_INPUT, usage["input_tokens"]), (_OUTPUT, usage["output_tokens"])):
        charged = sum(line.quantity for line in tokens if line.unit in names)
        if charged != total:
            sentence = f"expected {total} of {names[0]}, charged are {charged} (lines: {units})"
            report.violate("costs", outcome.response_id, sentence)
    if any(line.estimated != outcome.estimated for line in tokens):
        sentence = f"the fact says estimated={outcome.estimated}, its lines otherwise"
        report.violate("costs", outcome.response_id, sentence)


def _tool_calls(evidence: Evidence, kept: dict[str, list[Line]], report: Report) -> None:
    """Each call of a tool that ran has one line; so has each tool that the provider ran."""
    expected: dict[str, set[str]] = defaultdict(set)
    for result in evidence.results:
        if result.error not in _NEVER_RAN:
            expected[result.response_id].add(result.call_id)
    for response_id in evidence.known():
        outcome = evidence.outcome(response_id)
        if outcome is not None:
            expected[response_id] |= set(_hosted(outcome.response or {}))
    for response_id in expected.keys() | kept.keys():
        lines = [line for line in kept.get(response_id, ()) if line.unit == "tool_calls"]
        found = [line.line_id.removeprefix(f"{response_id}:") for line in lines]
        if sorted(found) != sorted(expected[response_id]):
            sentence = f"expected lines of tools {sorted(expected[response_id])}"
            report.violate("costs", response_id, f"{sentence}, found {sorted(found)}")


def _hosted(response: Json) -> Iterable[str]:
    for item in response.get("output") or ():
        if item.get("type") in _HOSTED and item.get("status") != "failed":
            container = item.get("container_id")
            yield str(container if item["type"] == "code_interpreter_call" else item["id"])


def _prices(lines: Iterable[Line], report: Report) -> None:
    """A line costs its quantity times its price, and one thing has one price."""
    prices: dict[tuple[str, str, str | None], set[Decimal]] = defaultdict(set)
    for line in lines:
        if line.unit_price_usd is None:
            if line.cost_usd is not None or not line.unpriced_reason:
                report.violate("costs", line.response_id, f"{line.line_id} has no price, no reason")
            continue
        prices[line.model, line.unit, line.tool].add(line.unit_price_usd)
        cost = (line.unit_price_usd * line.quantity).quantize(_SCALE, ROUND_HALF_EVEN)
        if line.cost_usd != cost:
            sentence = f"{line.line_id} is {line.quantity} x {line.unit_price_usd} = {cost}"
            report.violate("costs", line.response_id, f"{sentence}, charged are {line.cost_usd}")
    for (model, unit, tool), found in prices.items():
        if len(found) > 1:
            report.violate("costs", model or str(tool), f"{unit} has several prices: {found}")


def _told(evidence: Evidence, report: Report) -> None:
    """The facts on `costs.recorded` and the rows of the ledger are the same lines."""
    told: dict[str, Line] = {}
    for line in evidence.lines_told:
        first = told.setdefault(line.line_id, line)
        if first != line:
            report.violate("costs", line.response_id, f"{line.line_id} was told in two ways")
    kept = {line.line_id: line for line in evidence.lines_kept}
    report.count("cost facts repeated", len(evidence.lines_told) - len(told))
    for line_id in sorted(kept.keys() - told.keys()):
        sentence = f"the line {line_id} is in the ledger, but not on costs.recorded"
        report.violate("costs", kept[line_id].response_id, sentence)
    for line_id in sorted(told.keys() - kept.keys()):
        sentence = f"the line {line_id} is on costs.recorded, but not in the ledger"
        report.violate("costs", told[line_id].response_id, sentence)
    for line_id in kept.keys() & told.keys():
        if kept[line_id] != told[line_id]:
            sentence = f"{line_id}: the fact tells {told[line_id]}, the ledger {kept[line_id]}"
            report.violate("costs", kept[line_id].response_id, sentence)
