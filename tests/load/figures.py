"""What is measured, what was found, and the bars that it is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

DELTAS = 100
UPSTREAM, ANTIPHON = "upstream alone", "antiphon"
SMG, LITELLM = PEERS = ("smg", "litellm")
GATEWAY_PARTS = ("intake", "worker")
JSON_RATIO = 0.06
EVENTS_PER_S = 30_000
ADDED_MS = {"p50": 8.0, "p99": 20.0}
PACED_CPU_S = 9.0
"""Of intake and worker together, for 1000 paced streams."""
USERS_P95_MS = 20.0
IDLE_RSS_MB = 120.0

Kind = Literal["json", "stream", "paced", "users"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load; a paced one has a pause before each delta. Users think before they ask again."""

    title: str
    kind: Kind
    connections: int
    interval_ms: int = 0
    deltas: int = DELTAS
    think_ms: int = 0
    stream: bool = True


SCENARIOS = JSON_32, JSON_100, STREAMS_32, PACED_100, USERS_JSON, USERS_STREAMS = (
    Scenario("JSON, 32 connections", "json", 32, stream=False),
    Scenario("JSON, 100 connections", "json", 100, stream=False),
    Scenario(f"{DELTAS}-delta streams, 32 connections", "stream", 32),
    Scenario("100 streams of 50 tokens/s", "paced", 100, interval_ms=20),
    Scenario("100 users, JSON", "users", 100, 500, deltas=1, think_ms=1_000, stream=False),
    Scenario("100 users, streams", "users", 100, 20, deltas=25, think_ms=1_000),
)


PEER_BARS: tuple[tuple[Scenario, str, float], ...] = (
    (JSON_32, SMG, 0.8),
    (JSON_100, SMG, 1.0),
    (STREAMS_32, SMG, 2.0),
    (JSON_32, LITELLM, 25.0),
    (JSON_100, LITELLM, 25.0),
)
"""How many times a peer's answers or events a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One scenario and what was found under it; `counted` is what the generator printed."""

    scenario: Scenario
    seconds: float
    counted: dict[str, Any]
    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    foreign_cores: float

    @property
    def errors(self) -> int:
        return sum(map(int, self.counted["errors"].values()))

    @property
    def answers(self) -> float:
        """Requests, or streams' worth of deltas, within the window."""
        streams = self.counted["deltas"] / self.scenario.deltas
        return float(streams if self.scenario.stream else self.counted["requests"])

    def per_1000(self, part: str) -> float:
        """CPU seconds of a part, or of all of a kind, per 1000 requests or streams."""
        return self.cpu_s[part] / max(self.answers, 1.0) * 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Measurement):
    """One scenario through one gateway."""

    gateway: str
    gateway_cores: float

    @property
    def rate(self) -> float:
        """Requests/s for JSON, else events/s."""
        name = "events" if self.scenario.stream else "requests"
        return float(self.counted[name]) / self.seconds

    def __str__(self) -> str:
        noun = "events" if self.scenario.stream else "answers"
        return f"{self.scenario.title}, {self.gateway}: {self.rate:,.0f} {noun}/s"


@dataclass(kw_only=True, slots=True)
class Figures:
    """All that one `make bench` found; `absent` says of a peer why it was not measured."""

    machine: dict[str, str]
    pinning: str
    peers: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    idle_rss_mb: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def find(self, scenario: Scenario, gateway: str) -> Run | None:
        """Give one run, None if it was not made."""
        runs = (r for r in self.runs if (r.scenario, r.gateway) == (scenario, gateway))
        return next(runs, None)


@dataclass(frozen=True, slots=True)
class Bar:
    """What is to be reached, what was, and whether that is enough."""

    what: str
    bar: str
    reached: str
    met: bool


def added_ms(
    figures: Figures, gateway: str, scenario: Scenario = PACED_100, *, of: str = "lag_ms"
) -> dict[str, float] | None:
    """Give by how much a gateway's lag exceeds the bare upstream's, percentile by percentile.

    `of` may be `latency_ms`, for whole answers.
    """
    bare, run = figures.find(scenario, UPSTREAM), figures.find(scenario, gateway)
    if bare is None or run is None or not bare.counted[of] or not run.counted[of]:
        return None
    times = run.counted[of]
    return {name: times[name] - base for name, base in bare.counted[of].items()}


def ratio(figures: Figures, run: Run) -> float | None:
    """Give a run's rate as a share of the bare upstream's under the same load."""
    bare = figures.find(run.scenario, UPSTREAM)
    return run.rate / bare.rate if bare is not None and bare.rate else None


def bars(figures: Figures) -> list[Bar]:
    """Judge what was measured; machines are noisy, so that a missed bar is no error."""
    judged = []
    json, streams = figures.find(JSON_32, ANTIPHON), figures.find(STREAMS_32, ANTIPHON)
    if json and (share := ratio(figures, json)) is not None:
        met = share >= JSON_RATIO
        judged.append(Bar(JSON_32.title, f"ratio >= {JSON_RATIO}", f"{share:.3f}", met))
    if streams and (share := ratio(figures, streams)) is not None:
        reached = f"{streams.rate:,.0f} events/s (ratio {share:.3f})"
        met = streams.rate >= EVENTS_PER_S
        judged.append(Bar(STREAMS_32.title, f">= {EVENTS_PER_S:,} events/s", reached, met))
    judged += [*_against_peers(figures), *_paced(figures)]
    for scenario, of, what in (
        (USERS_JSON, "latency_ms", "answer"),
        (USERS_STREAMS, "lag_ms", "delta"),
        (USERS_STREAMS, "latency_ms", "whole stream"),
    ):
        if added := added_ms(figures, ANTIPHON, scenario, of=of):
            bar, p95 = f"added p95 < {USERS_P95_MS:.0f} ms", added["p95"]
            met = p95 < USERS_P95_MS
            judged.append(Bar(f"{scenario.title}: {what}", bar, f"{p95:.1f} ms", met))
    for part in GATEWAY_PARTS:
        size, bar = figures.idle_rss_mb[part], f"<= {IDLE_RSS_MB:.0f} MB"
        judged.append(Bar(f"RSS of the idle {part}", bar, f"{size:.0f} MB", size <= IDLE_RSS_MB))
    return judged


def _against_peers(figures: Figures) -> list[Bar]:
    judged = []
    for scenario, peer, least in PEER_BARS:
        own, other = figures.find(scenario, ANTIPHON), figures.find(scenario, peer)
        if own and other:
            times = own.rate / max(other.rate, 1e-9)
            what, bar = f"{scenario.title}: against {peer}", f">= {least:g} times"
            judged.append(Bar(what, bar, f"{times:.2f} times", times >= least))
    return judged


def _paced(figures: Figures) -> list[Bar]:
    judged, title = [], PACED_100.title
    for name, most_ms in ADDED_MS.items():
        if added := added_ms(figures, ANTIPHON):
            bar, reached = f"added {name} < {most_ms:.0f} ms", f"{added[name]:.1f} ms"
            judged.append(Bar(f"{title}: {name}", bar, reached, added[name] < most_ms))
    if run := figures.find(PACED_100, ANTIPHON):
        cpu_s = sum(map(run.per_1000, GATEWAY_PARTS))
        bar, reached = f"CPU of 1000 <= {PACED_CPU_S:.0f} s", f"{cpu_s:.1f} s"
        judged.append(Bar(f"{title}: intake + worker", bar, reached, cpu_s <= PACED_CPU_S))
    return judged
