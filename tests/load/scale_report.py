"""What `make scale` found, as text: a section of the figures, and the sizing for operators."""

from __future__ import annotations

from collections.abc import Sequence

from tests.load.figures import GATEWAY_PARTS
from tests.load.machine import describe
from tests.load.report import stamp, table
from tests.load.scale_rows import LOADS, PACED_400, Row, measured
from tests.load.sizing import (
    INTAKE_CONNECTIONS,
    MOST_BROKER_MB_S,
    OTHER_CONNECTIONS,
    REPLICAS,
    WORKER_CONNECTIONS,
    Measured,
    Needs,
    Use,
    needs,
)

HEADING = "## One, two and four of each"
SIZING_HEADING = "### What it takes"
STREAMS = (1_000, 10_000, 100_000)


def render(rows: Sequence[Row]) -> str:
    """Give the section with the figures."""
    noise = max((row.foreign_cores for row in rows), default=0.0)
    parts = [*GATEWAY_PARTS, "kafka", "postgres"]
    lines = [
        [
            f"{row.scenario.title}, {row.size} x {row.size}",
            f"{row.answers / row.seconds:,.0f}",
            f"{(row.counted['latency_ms'] or {}).get('p50', 0.0):,.1f}",
            f"{row.counted['lag_ms']['p99']:,.1f}" if row.counted["lag_ms"] else "",
            *(f"{row.per_1000(part):.2f}" for part in parts),
            f"{sum(row.rss_mb[part] for part in GATEWAY_PARTS):.0f}",
            str(row.errors),
        ]
        for scenario in LOADS
        for row in rows
        if row.scenario == scenario
    ]
    head = ["load, intakes x workers", "answers/s", "p50 ms", "lag p99 ms"]
    cpu = [f"{part} CPU s" for part in parts]
    method = (
        "`make scale`: the load is spread over the intakes. All processes share this machine's "
        "cores, so that more of them can't answer more; CPU seconds are per 1000 requests or "
        "streams, of all intakes, of all workers. MB are of intakes and workers."
    )
    busy = f"Other programs kept up to {noise:.2f} cores busy."
    figures = table([*head, *cpu, "MB", "errors"], lines)
    return "\n\n".join([method, f"{stamp(describe())} {busy}", figures])


def render_sizing(rows: Sequence[Row]) -> str:
    """Give the section for operators; says so when the figures don't suffice."""
    figures = measured(rows)
    if figures is None:
        return "Not measured: `make scale` needs its JSON load and its fullest streams."
    use = Use(streams=STREAMS[0])
    found = [needs(Use(streams=streams), figures) for streams in STREAMS]
    assumed = (
        f"A stream is {use.tokens:.0f} tokens at {use.tokens_per_s:.0f} tokens/s here, one delta "
        f"each, with 512 bytes of input; so N streams are {use.tokens_per_s:.0f} N deltas/s and N/"
        f"{use.tokens / use.tokens_per_s:.0f} responses/s. Models are often slower: at 25 tokens/s "
        "halve what comes per delta. A day's mean is "
        f"{use.busy_share:.0%} of its peak. A process uses {figures.full_share:.0%} of its core at "
        f"the peak, and there are two of each, so that one may end."
    )
    origin = (
        "Written by `make scale WRITE=1` from what it measured, on the machine in "
        "[performance.md](performance.md#one-two-and-four-of-each): scale the numbers of "
        "processes by the speed of your cores."
    )
    return "\n\n".join(
        [
            origin,
            _costs(figures),
            assumed,
            table(["streams at once", *(f"{n:,}" for n in STREAMS)], _needs(found)),
            _arithmetic(figures, found[0]),
        ]
    )


def _costs(figures: Measured) -> str:
    f = figures
    rows = [
        ["CPU of intake", f"{f.intake_delta_us:.1f} us", f"{f.intake_response_us:,.0f} us"],
        ["CPU of a worker", f"{f.worker_delta_us:.1f} us", f"{f.worker_response_us:,.0f} us"],
        ["bytes in Kafka", f"{f.kafka_delta_bytes:,.0f}", f"{f.kafka_response_bytes:,.0f}"],
        ["rows in PostgreSQL", "0", f"{f.rows_per_response:.1f}"],
        ["bytes of its log (WAL)", "0", f"{f.wal_bytes_per_response:,.0f}"],
        ["bytes of its tables", "0", f"{f.database_bytes_per_response:,.0f}"],
    ]
    memory = (
        f"An open stream holds about {f.intake_stream_kb:.0f} KB in its intake and "
        f"{f.worker_stream_kb:.0f} KB in its worker (`make soak`). The costs of a delta are those "
        f"of {PACED_400.connections} streams on one worker: with fewer, a pack holds less and a "
        "delta costs more."
    )
    return table(["measured", "a delta", "a response without them"], rows) + "\n\n" + memory


def _needs(found: Sequence[Needs]) -> list[list[str]]:
    rows = [
        ("intakes", "intakes", ""),
        ("workers", "workers", ""),
        ("partitions of `responses.events`", "events_partitions", ""),
        ("partitions of `responses.commands` and `responses.lifecycle`", "commands_partitions", ""),
        ("Kafka, from producers", "kafka_mb_s", " MB/s"),
        ("brokers", "brokers", ""),
        ("disk of events, all brokers", "events_gb", " GB"),
        ("disk of commands and facts, all brokers", "facts_gb", " GB"),
        ("PostgreSQL: rows written", "rows_per_s", "/s"),
        ("PostgreSQL: its log", "wal_mb_s", " MB/s"),
        ("PostgreSQL: growth a day", "database_gb_a_day", " GB"),
        ("PostgreSQL: connections at most", "connections", ""),
        ("memory of an intake", "intake_mb", " MB"),
        ("memory of a worker", "worker_mb", " MB"),
    ]
    return [
        [title, *(f"{_rounded(getattr(need, name))}{unit}" for need in found)]
        for title, name, unit in rows
    ]


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 10 and not float(value).is_integer() else f"{value:,.0f}"


def _arithmetic(figures: Measured, need: Needs) -> str:
    f, use = figures, Use(streams=STREAMS[0])
    deltas, responses = use.deltas_per_s, use.responses_per_s
    cores = (deltas * f.worker_delta_us + responses * f.worker_response_us) / 1e6
    return (
        f"For {use.streams:,} streams: {deltas:,.0f} deltas/s x {f.worker_delta_us:.1f} us + "
        f"{responses:.0f} responses/s x {f.worker_response_us:.0f} us = {cores:.2f} cores, / "
        f"{f.full_share:.0%} = {need.workers} workers; intakes alike. Kafka: {deltas:,.0f} x "
        f"{f.kafka_delta_bytes:.0f} B + {responses:.0f} x {f.kafka_response_bytes:,.0f} B = "
        f"{need.kafka_mb_s:.1f} MB/s; x {REPLICAS} replicas / {MOST_BROKER_MB_S:.0f} MB/s gives "
        f"the brokers, at least {REPLICAS}. Events stay for an hour and a quarter, commands and "
        "facts for 7 days, each as many times as there are replicas. Connections are at most "
        f"{INTAKE_CONNECTIONS} of an intake, {WORKER_CONNECTIONS} of a worker and "
        f"{OTHER_CONNECTIONS} of one replica of each other service."
    )
