"""What the figures say: ratios, added latency, bars, the page."""

from __future__ import annotations

from typing import Any

from tests.load.figures import (
    ANTIPHON,
    LITELLM,
    SCENARIOS,
    SMG,
    UPSTREAM,
    Figures,
    Run,
    Scenario,
    added_ms,
    bars,
)
from tests.load.generator import percentiles
from tests.load.machine import Usage, split_cores
from tests.load.report import page_with, page_with_section, render, table

JSON_32, JSON_100, STREAMS_32, PACED_100, USERS_JSON, USERS_STREAMS = SCENARIOS
PARTS = {"kafka": 400.0, "intake": 100.0, "worker": 121.0}


def run(scenario: Scenario, gateway: str, **counted: Any) -> Run:
    nothing = {"requests": 0, "events": 0, "deltas": 0, "latency_ms": None, "lag_ms": None}
    return Run(
        scenario=scenario,
        gateway=gateway,
        seconds=2.0,
        counted={**nothing, "errors": {}, **counted},
        cpu_s=dict.fromkeys(PARTS, 0.5),
        rss_mb={part: size + 10 for part, size in PARTS.items()},
        gateway_cores=0.5,
        foreign_cores=0.1,
    )


def figures(*runs: Run) -> Figures:
    return Figures(machine={"cores": "2"}, pinning="Pinned.", runs=list(runs), idle_rss_mb=PARTS)


def lags(p50: float, p95: float, p99: float) -> dict[str, float]:
    return {"p50": p50, "p95": p95, "p99": p99}


ALL = figures(
    run(JSON_32, UPSTREAM, requests=40_000),
    run(JSON_32, ANTIPHON, requests=2_400, latency_ms=lags(10, 20, 30)),
    run(STREAMS_32, UPSTREAM, events=200_000, deltas=190_000),
    run(STREAMS_32, ANTIPHON, events=50_000, deltas=48_000),
    run(PACED_100, UPSTREAM, events=10_000, deltas=10_000, lag_ms=lags(1, 2, 4)),
    run(PACED_100, ANTIPHON, events=10_000, deltas=10_000, lag_ms=lags(6, 12, 28.9)),
)


def test_bars_compare_with_the_bare_upstream_of_the_same_run() -> None:
    judged = {bar.what: (bar.reached, bar.met) for bar in bars(ALL)}
    assert judged == {
        JSON_32.title: ("0.060", True),
        STREAMS_32.title: ("25,000 events/s (ratio 0.250)", False),
        f"{PACED_100.title}: p50": ("5.0 ms", True),
        f"{PACED_100.title}: p99": ("24.9 ms", False),
        f"{PACED_100.title}: intake + worker": ("10.0 s", False),
        "RSS of the idle intake": ("100 MB", True),
        "RSS of the idle worker": ("121 MB", False),
    }


def test_peers_are_compared_where_both_were_measured() -> None:
    judged = bars(
        figures(
            run(JSON_32, ANTIPHON, requests=2_400),
            run(JSON_32, SMG, requests=3_000),
            run(JSON_32, LITELLM, requests=100),
            run(JSON_100, ANTIPHON, requests=2_400),
            run(STREAMS_32, SMG, events=5_000),
        )
    )
    assert [(bar.what, bar.reached, bar.met) for bar in judged if "against" in bar.what] == [
        (f"{JSON_32.title}: against smg", "0.80 times", True),
        (f"{JSON_32.title}: against litellm", "24.00 times", False),
    ]


def test_the_text_says_which_peers_were_there_and_why_others_were_not() -> None:
    found = figures(*ALL.runs, run(JSON_32, SMG, requests=3_000))
    found.peers, found.absent = {SMG: "1.2.3"}, {LITELLM: "It could not be installed"}
    found.idle_rss_mb = {**PARTS, SMG: 60.0}
    for measured in found.runs:
        measured.cpu_s[SMG], measured.rss_mb[SMG] = 1.5, 70.0
    text = render(found)
    assert "that core: smg 1.2.3. Not measured: litellm: It could not be installed." in text
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    costs = {row[1]: row[2:] for row in rows if len(row) == 8}
    assert costs["intake + worker"] == ["0.42", "2.08", "10.00", "", "", ""]
    assert costs[SMG] == ["0.50", "", "", "60", "70", ""]


def test_what_was_not_measured_has_no_bar() -> None:
    assert [bar.what for bar in bars(figures())] == [
        "RSS of the idle intake",
        "RSS of the idle worker",
    ]
    assert added_ms(figures(), ANTIPHON) is None


def test_cpu_is_per_thousand_requests_or_streams_of_a_hundred_deltas() -> None:
    assert run(JSON_32, ANTIPHON, requests=2_000).per_1000("intake") == 0.25
    assert run(STREAMS_32, ANTIPHON, deltas=50_000).per_1000("intake") == 1.0


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles([]) is None
    assert percentiles([3.0]) == lags(3, 3, 3)
    assert percentiles([float(n) for n in range(100, 0, -1)]) == lags(50, 95, 99)


def test_tables_are_aligned_markdown() -> None:
    assert table(["part", "MB"], [["kafka", "400"], ["s3", "9"]]).splitlines() == [
        "| part  |  MB |",
        "| ----- | --: |",
        "| kafka | 400 |",
        "| s3    |   9 |",
    ]


def test_the_text_names_problems_and_a_machine_that_was_busy() -> None:
    noisy = figures(*ALL.runs)
    noisy.problems = ["worker was restarted"]
    assert "too much" not in render(noisy)
    assert "Problem: worker was restarted." in render(noisy)
    quiet = noisy.runs[0]
    noisy.runs[0] = Run(
        scenario=quiet.scenario,
        gateway=quiet.gateway,
        seconds=quiet.seconds,
        counted=quiet.counted,
        cpu_s=quiet.cpu_s,
        rss_mb=quiet.rss_mb,
        gateway_cores=quiet.gateway_cores,
        foreign_cores=1.5,
    )
    assert "kept up to 1.50 cores busy - too much" in render(noisy)


def test_new_figures_replace_the_old_ones_on_the_page() -> None:
    page = "# Performance\n\n## Method\n\nAs follows.\n"
    first = page_with(page, "one\n")
    assert first == page + "\n## Figures\n\none\n"
    assert page_with(first, "two\n") == page + "\n## Figures\n\ntwo\n"


def test_a_section_is_written_anew_in_its_place_before_the_figures() -> None:
    page = "# Performance\n\n## Method\n\nAs follows.\n\n## Figures\n\none\n"
    first = page_with_section(page, "## Soak", "old\n")
    assert first == page.replace("\n## Figures", "\n## Soak\n\nold\n\n## Figures")
    assert page_with_section(first, "## Soak", "old\n") == first
    second = page_with_section(first, "## Soak", "new")
    assert second == first.replace("old", "new")


def test_the_first_core_is_the_gateway_s_and_one_core_is_not_split() -> None:
    cores = split_cores({3, 1, 2})
    assert cores is not None
    assert (cores.gateway, cores.rest) == (frozenset({1}), frozenset({2, 3}))
    assert split_cores({0}) is None


def test_usage_tells_our_cpu_from_that_of_others() -> None:
    before = Usage(cpu_s={"kafka": 1.0}, rss_mb={}, own_s=2.0, machine_s=10.0)
    after = Usage(cpu_s={"kafka": 1.5}, rss_mb={}, own_s=3.0, machine_s=14.0)
    assert after.since(before, 2.0) == ({"kafka": 0.5}, 1.5)
