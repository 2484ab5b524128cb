"""The loads of `make scale`, what was found under each, and what a delta and a response cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.load.figures import JSON_100, PACED_100, Measurement, Scenario
from tests.load.footprint import Footprint
from tests.load.sizing import Measured

PACED_400 = Scenario("400 streams of 50 tokens/s", "paced", 400, interval_ms=20)
LOADS = (JSON_100, PACED_100, PACED_400)
INTAKE_STREAM_KB, WORKER_STREAM_KB = 40.0, 100.0
"""Memory of an open stream: what `make soak` holds with 1,000 of them, less the idle process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row(Measurement):
    """One load on so many intakes and workers; CPU and memory are of all of a kind together."""

    size: int
    left: Footprint


def by_kind(values: Mapping[str, float]) -> dict[str, float]:
    """Add up replicas: `worker-2` is a worker."""
    kinds: dict[str, float] = defaultdict(float)
    for name, value in values.items():
        kinds[name.partition("-")[0]] += value
    return dict(kinds)


def measured(rows: Sequence[Row]) -> Measured | None:
    """Give the costs of a response and of a delta; None when a load that tells is missing.

    A JSON answer is a response without deltas. A delta is what a stream costs beyond that, by the
    fullest load of the smallest stack: packs of a busy worker hold more, as they would at work.
    """
    smallest = min((row.size for row in rows), default=0)
    found = {row.scenario: row for row in rows if row.size == smallest}
    json, streams = found.get(JSON_100), found.get(PACED_400)
    if json is None or streams is None or not json.answers or not streams.answers:
        return None
    deltas = float(streams.counted["deltas"])

    def of_response(total: float) -> float:
        return total / json.answers

    def of_delta(total: float, for_responses: float) -> float:
        return max(0.0, total - streams.answers * for_responses) / deltas

    intake_us, worker_us = (of_response(json.cpu_s[kind]) * 1e6 for kind in ("intake", "worker"))
    kafka_bytes = of_response(sum(json.left.kafka_bytes.values()))
    return Measured(
        intake_delta_us=of_delta(streams.cpu_s["intake"] * 1e6, intake_us),
        worker_delta_us=of_delta(streams.cpu_s["worker"] * 1e6, worker_us),
        intake_response_us=intake_us,
        worker_response_us=worker_us,
        kafka_delta_bytes=of_delta(sum(streams.left.kafka_bytes.values()), kafka_bytes),
        kafka_response_bytes=kafka_bytes,
        rows_per_response=of_response(json.left.rows),
        wal_bytes_per_response=of_response(json.left.wal_bytes),
        database_bytes_per_response=of_response(json.left.database_bytes),
        intake_stream_kb=INTAKE_STREAM_KB,
        worker_stream_kb=WORKER_STREAM_KB,
    )
