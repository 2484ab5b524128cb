"""From what was measured to what a team needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.load.figures import JSON_100, PACED_100, Scenario
from tests.load.footprint import Footprint, topic_bytes
from tests.load.scale import options
from tests.load.scale_report import render, render_sizing
from tests.load.scale_rows import PACED_400, Row, by_kind, measured
from tests.load.sizing import Measured, Use, needs

KINDS = ("intake", "worker", "kafka", "postgres")


def row(scenario: Scenario, *, size: int = 1, cpu_s: float, kafka: int, **counted: Any) -> Row:
    nothing: dict[str, Any] = {
        "requests": 0,
        "deltas": 0,
        "latency_ms": None,
        "lag_ms": None,
        "errors": {},
    }
    return Row(
        size=size,
        scenario=scenario,
        seconds=10.0,
        counted={**nothing, **counted},
        cpu_s=dict.fromkeys(KINDS, cpu_s),
        rss_mb=dict.fromkeys(KINDS, 100.0),
        foreign_cores=0.0,
        left=Footprint({"responses.events": kafka}, 6_000, 100, 4_000_000, 7_000_000),
    )


ANSWERS = row(JSON_100, cpu_s=0.5, kafka=5_000_000, requests=1_000)
STREAMS = row(PACED_400, cpu_s=3.0, kafka=35_000_000, deltas=100_000)


def test_a_delta_costs_what_a_stream_costs_beyond_an_answer_without_deltas() -> None:
    figures = measured([ANSWERS, STREAMS])
    assert figures is not None
    assert figures.worker_response_us == pytest.approx(500)
    assert figures.kafka_response_bytes == pytest.approx(5_000)
    # 1000 streams of 100 deltas: 3 s less 1000 x 500 us, 35 MB less 1000 x 5000 bytes.
    assert figures.worker_delta_us == pytest.approx(25)
    assert figures.kafka_delta_bytes == pytest.approx(300)
    assert figures.rows_per_response == pytest.approx(6)
    assert figures.wal_bytes_per_response == pytest.approx(7_000)
    assert figures.database_bytes_per_response == pytest.approx(4_000)


def test_costs_are_those_of_the_smallest_stack_and_need_both_loads() -> None:
    larger = row(JSON_100, size=4, cpu_s=9.0, kafka=1, requests=1)
    assert measured([larger, ANSWERS, STREAMS]) == measured([ANSWERS, STREAMS])
    assert measured([ANSWERS, row(PACED_400, size=4, cpu_s=1, kafka=1, deltas=1)]) is None
    assert measured([]) is None
    assert "Not measured" in render_sizing([ANSWERS])


FIGURES = Measured(
    intake_delta_us=6.0,
    worker_delta_us=12.0,
    intake_response_us=400.0,
    worker_response_us=400.0,
    kafka_delta_bytes=300.0,
    kafka_response_bytes=5_000.0,
    rows_per_response=6.0,
    wal_bytes_per_response=7_000.0,
    database_bytes_per_response=4_000.0,
    intake_stream_kb=30.0,
    worker_stream_kb=100.0,
)


def test_what_a_team_needs_follows_from_the_figures() -> None:
    found = needs(Use(streams=10_000), FIGURES)
    # 500,000 deltas/s x 12 us + 1,000 responses/s x 400 us = 6.4 cores, at 60% of each.
    assert (found.workers, found.intakes) == (11, 6)
    assert found.kafka_mb_s == pytest.approx(155)
    assert found.brokers == 10
    # 150 MB/s x 0.3 of the peak x 1.25 h x 3 replicas.
    assert found.events_gb == pytest.approx(607.5)
    # 1,000/s x 0.3 x 7 days x 5,000 bytes x 3 replicas.
    assert found.facts_gb == pytest.approx(2_721.6)
    assert found.rows_per_s == pytest.approx(6_000)
    assert found.wal_mb_s == pytest.approx(7)
    assert found.database_gb_a_day == pytest.approx(103.68)
    assert found.connections == 6 * 15 + 11 * 12 + 32
    assert found.worker_mb == pytest.approx(110 + 10_000 / 11 * 0.1)


def test_small_teams_have_two_of_each_and_the_partitions_that_are_there() -> None:
    found = needs(Use(streams=10), FIGURES)
    assert (found.intakes, found.workers, found.brokers) == (2, 2, 3)
    assert (found.events_partitions, found.commands_partitions) == (8, 12)
    large = needs(Use(streams=100_000), FIGURES)
    assert large.events_partitions == large.intakes > 8
    assert large.commands_partitions == large.workers > 12


def test_replicas_count_together() -> None:
    assert by_kind({"worker": 1.0, "worker-2": 2.0, "mcp_broker": 3.0}) == {
        "worker": 3.0,
        "mcp_broker": 3.0,
    }


def test_segments_of_all_partitions_of_a_topic_are_added_up(tmp_path: Path) -> None:
    for folder, size in (("costs.recorded-0", 10), ("costs.recorded-11", 5), ("a-b-0", 7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "00000000000000000000.log").write_bytes(b"x" * size)
        (tmp_path / folder / "00000000000000000000.index").write_bytes(b"x" * 1_000)
    assert topic_bytes(tmp_path) == {"costs.recorded": 15, "a-b": 7}


def test_a_footprint_says_what_came_since_an_earlier_one() -> None:
    before = Footprint({"a": 10, "b": 5}, 100, 10, 1_000, 2_000)
    after = Footprint({"a": 30, "b": 5, "c": 1}, 160, 12, 1_500, 2_700)
    assert after.since(before) == Footprint({"a": 20, "c": 1}, 60, 2, 500, 700)


def test_the_text_has_a_row_for_each_load_and_size() -> None:
    text = render([ANSWERS, STREAMS, row(PACED_100, size=2, cpu_s=1, kafka=1, deltas=1_000)])
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    rows = {line[1]: line[2:-1] for line in cells if len(line) > 5}
    assert rows[f"{JSON_100.title}, 1 x 1"][3:] == ["0.50", "0.50", "0.50", "0.50", "200", "0"]
    assert rows[f"{PACED_100.title}, 2 x 2"][0] == "1"
    assert "workers" in render_sizing([ANSWERS, STREAMS])


def test_options_that_make_no_sense_are_refused() -> None:
    assert options(["--sizes", "1,4"]).sizes == [1, 4]
    for arguments in (["--sizes", "0"], ["--sizes", "x"], ["--seconds", "0"]):
        with pytest.raises(SystemExit):
            options(arguments)
