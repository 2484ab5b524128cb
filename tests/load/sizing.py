"""From measured figures to what a team needs: plain arithmetic, every assumption a field."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contracts.topics import RESPONSES_COMMANDS, RESPONSES_EVENTS

DAY_S = 86_400
HOURS_OF_EVENTS = RESPONSES_EVENTS.retention_ms / 3_600_000 * 1.25
"""With the segment that is being written; a quarter of the retention."""
DAYS_OF_FACTS = RESPONSES_COMMANDS.retention_ms / 86_400_000
MOST_BROKER_MB_S = 50.0
"""What one modest broker writes for producers, beside as much for each replica and reader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What people do: streams at once, their pace, their length, and how busy a day is."""

    streams: int
    tokens_per_s: float = 50.0
    tokens: float = 500.0
    busy_share: float = 0.3
    """A day's mean as a share of the peak, for disks."""

    @property
    def deltas_per_s(self) -> float:
        """Deltas of all streams together."""
        return self.streams * self.tokens_per_s

    @property
    def responses_per_s(self) -> float:
        """Streams that begin, and end, each second."""
        return self.streams * self.tokens_per_s / self.tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Per delta and per response (without its deltas) what each part spends and keeps."""

    intake_delta_us: float
    worker_delta_us: float
    intake_response_us: float
    worker_response_us: float
    kafka_delta_bytes: float
    kafka_response_bytes: float
    rows_per_response: float
    wal_bytes_per_response: float
    database_bytes_per_response: float
    intake_stream_kb: float
    worker_stream_kb: float
    full_share: float = 0.6
    """How much of its core a process may use at the peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What that takes."""

    intakes: int
    workers: int
    events_partitions: int
    commands_partitions: int
    kafka_mb_s: float
    brokers: int
    events_gb: float
    facts_gb: float
    rows_per_s: float
    wal_mb_s: float
    database_gb_a_day: float
    intake_mb: float
    worker_mb: float
    connections: int


INTAKE_CONNECTIONS, WORKER_CONNECTIONS, OTHER_CONNECTIONS = 15, 12, 32
IDLE_MB = 110.0
REPLICAS = 3


def needs(use: Use, measured: Measured) -> Needs:
    """Do the arithmetic; partitions are at least what the topics have from the start."""
    intake_s = _cores(use, measured.intake_delta_us, measured.intake_response_us)
    worker_s = _cores(use, measured.worker_delta_us, measured.worker_response_us)
    # Two of each, so that one may end.
    intakes = max(2, math.ceil(intake_s / measured.full_share))
    workers = max(2, math.ceil(worker_s / measured.full_share))
    events_mb_s = use.deltas_per_s * measured.kafka_delta_bytes / 1e6
    kafka_mb_s = events_mb_s + use.responses_per_s * measured.kafka_response_bytes / 1e6
    a_day = use.responses_per_s * use.busy_share * DAY_S
    return Needs(
        intakes=intakes,
        workers=workers,
        events_partitions=max(RESPONSES_EVENTS.partitions, intakes),
        commands_partitions=max(RESPONSES_COMMANDS.partitions, workers),
        kafka_mb_s=kafka_mb_s,
        brokers=max(REPLICAS, math.ceil(kafka_mb_s * REPLICAS / MOST_BROKER_MB_S)),
        events_gb=events_mb_s * use.busy_share * HOURS_OF_EVENTS * 3.6 * REPLICAS,
        facts_gb=a_day * measured.kafka_response_bytes * DAYS_OF_FACTS * REPLICAS / 1e9,
        rows_per_s=use.responses_per_s * measured.rows_per_response,
        wal_mb_s=use.responses_per_s * measured.wal_bytes_per_response / 1e6,
        database_gb_a_day=a_day * measured.database_bytes_per_response / 1e9,
        intake_mb=IDLE_MB + use.streams / intakes * measured.intake_stream_kb / 1000,
        worker_mb=IDLE_MB + use.streams / workers * measured.worker_stream_kb / 1000,
        connections=(
            intakes * INTAKE_CONNECTIONS + workers * WORKER_CONNECTIONS + OTHER_CONNECTIONS
        ),
    )


def _cores(use: Use, delta_us: float, response_us: float) -> float:
    return (use.deltas_per_s * delta_us + use.responses_per_s * response_us) / 1e6
