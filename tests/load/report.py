"""The figures as text: tables that read well in a terminal, and the page that shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tests.load.figures import (
    ANTIPHON,
    GATEWAY_PARTS,
    PEERS,
    UPSTREAM,
    Bar,
    Figures,
    Run,
    added_ms,
    bars,
    ratio,
)

HEADING = "## Figures"
BUSY_CORES = 0.25
"""More than this by other programs, and the figures say more about those."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table that reads well as plain text too; the first column is text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = "-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])
    return "\n".join([line(head), line(rule), *map(line, rows)])


def stamp(machine: Mapping[str, str]) -> str:
    """Say when this is, and on which machine."""
    words = ", ".join(f"{name} {value}" for name, value in machine.items())
    return f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; {words}."


def verdicts(judged: Sequence[Bar]) -> str:
    """Lay out what was reached of each bar."""
    rows = [[b.what, b.bar, b.reached, "met" if b.met else "missed"] for b in judged]
    return table(["what", "bar", "reached", "verdict"], rows)


def _throughput(figures: Figures) -> str:
    rows = []
    for run in figures.runs:
        # A pace that is kept by both says nothing, and the bare upstream is its own measure.
        tells = run.gateway != UPSTREAM and run.scenario.kind not in ("paced", "users")
        share, times = ratio(figures, run) if tells else None, run.counted["latency_ms"] or {}
        rows.append(
            [
                f"{run.scenario.title}, {run.gateway}",
                f"{run.counted['requests'] / run.seconds:,.0f}",
                f"{run.counted['events'] / run.seconds:,.0f}" if run.counted["events"] else "",
                f"{share:.3f}" if share is not None else "",
                *(f"{times[name]:,.1f}" if times else "" for name in ("p50", "p99")),
                f"{run.gateway_cores:.2f}" if run.gateway != UPSTREAM else "",
                str(run.errors),
            ]
        )
    head = ["load", "answers/s", "events/s", "ratio", "p50 ms", "p99 ms", "cores", "errors"]
    return table(head, rows)


def _lag(figures: Figures) -> str:
    rows = []
    for run in figures.runs:
        lags, added = run.counted["lag_ms"], added_ms(figures, run.gateway, run.scenario)
        if lags and added:
            cells = [f"{times[name]:.1f}" for times in (lags, added) for name in lags]
            rows.append([f"{run.scenario.title}, {run.gateway}", *cells])
    head = ["lag of a delta, ms", "p50", "p95", "p99", "added p50", "added p95", "added p99"]
    return table(head, rows) if rows else ""


def _cost(figures: Figures) -> str:
    runs = [run for run in figures.runs if run.gateway == ANTIPHON]
    peers = [name for name in PEERS if name in figures.idle_rss_mb]
    rows = []
    for part, idle_mb in figures.idle_rss_mb.items():
        if part not in peers:
            cells = [f"{run.per_1000(part):.2f}" for run in runs]
            rows.append([part, *cells, *_sizes(part, idle_mb, runs)])
    both = [f"{sum(map(run.per_1000, GATEWAY_PARTS)):.2f}" for run in runs]
    rows.append([" + ".join(GATEWAY_PARTS), *both, "", ""])
    for peer in peers:
        found = [figures.find(run.scenario, peer) for run in runs]
        cells = [f"{other.per_1000(peer):.2f}" if other else "" for other in found]
        sizes = _sizes(peer, figures.idle_rss_mb[peer], [run for run in found if run])
        rows.append([peer, *cells, *sizes])
    titles = [run.scenario.title for run in runs]
    return table(["part", *titles, "idle MB", "loaded MB"], rows)


def _sizes(part: str, idle_mb: float, runs: list[Run]) -> list[str]:
    most_mb = max((run.rss_mb[part] for run in runs), default=idle_mb)
    return [f"{idle_mb:.0f}", f"{most_mb:.0f}"]


def _others(figures: Figures) -> str:
    words = [f"{name} {version}" for name, version in figures.peers.items()]
    there = f"Beside it, each as one process on that core: {', '.join(words)}. " if words else ""
    return there + " ".join(f"Not measured: {name}: {why}." for name, why in figures.absent.items())


def render(figures: Figures) -> str:
    """Give everything as Markdown paragraphs and tables."""
    foreign = max((run.foreign_cores for run in figures.runs), default=0.0)
    noise = f"Other programs kept up to {foreign:.2f} cores busy"
    loud = " - too much for these figures to count" if foreign > BUSY_CORES else ""
    cost = "CPU seconds of each part per 1000 requests or streams, and its resident memory:"
    paragraphs = [
        stamp(figures.machine),
        f"{figures.pinning} {noise}{loud}.",
        _others(figures).strip(),
        _throughput(figures),
        _lag(figures),
        cost,
        _cost(figures),
        verdicts(bars(figures)),
        *(f"Problem: {problem}." for problem in figures.problems),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def page_with(page: str, figures: str) -> str:
    """Give the page with its last chapter, the figures, written anew."""
    text = page.partition(f"\n{HEADING}\n")[0].rstrip()
    return f"{text}\n\n{HEADING}\n\n{figures}"


def page_with_section(page: str, heading: str, section: str) -> str:
    """Give the page with one of its sections written anew, before the figures if it is new."""
    text = f"\n{heading}\n\n{section.strip()}\n"
    begin = page.find(f"\n{heading}\n")
    if begin < 0:
        begin = page.index(f"\n{HEADING}\n")
        return f"{page[:begin]}{text}{page[begin:]}"
    end = page.index("\n## ", begin + 1)
    return f"{page[:begin]}{text}{page[end:]}"
