"""`make soak SECONDS=600`: a long queue and many open streams at once, and what memory does.

10,000 background responses (`QUEUED`, and some to begin with) wait for their turn, timed so that
the last of them ends with the window, while 1,000 slow streams (`STREAMS`) are open all the time;
each that ends is opened anew. At the end everything must have drained: each response is read and
every stream was checked.
`WRITE=1` puts the figures into docs/performance.md; `NICE=-20` needs root. A missed bar: code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from infra.cli.output import Progress, out
from infra.local.errors import StackError
from infra.local.foreground import run_stack
from infra.local.process import serving
from infra.local.settings import CHECKOUT
from infra.local.stack import Stack
from tests.load.backlog import Backlog
from tests.load.figures import GATEWAY_PARTS, Bar
from tests.load.generator import Load
from tests.load.machine import bind, describe, read_usage
from tests.load.report import page_with_section, stamp, table, verdicts
from tests.load.runner import generating
from tests.load.stacks import UpstreamPart, own_stack
from tests.load.templates import model_name
from tests.load.trend import Sample, memory_bars
from tests.load.upstream import HOST

PAGE = CHECKOUT / "docs" / "performance.md"
HEADING = "## Ten thousand queued, a thousand streaming"
CORES = 2
INTERVAL_MS = 500
STREAM_S = 60
PER_KEY = 200
"""As many background responses of one key run at once: WORKER_BACKGROUND_PER_KEY's default."""
RAMP_S = 20.0
SAMPLE_S = 5.0
DRAIN_S = 180.0
ROWS = 12
EXTRA_SHARE = 0.05
"""So many more are handed in: some begin before the last of them is there."""
HELD_SHARE = 0.95
"""Of the streams: some end in the very moment of a reading."""
DISPATCH_SHARE = 0.9
"""The rest of a turn goes by between the end of one response and the begin of the next."""
_GAUGE = re.compile(
    r"^antiphon_worker_(queued|open_responses|background_running)(?:\{[^}]*\})? (\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many."""

    seconds: float
    queued: int
    streams: int

    @property
    def stream_deltas(self) -> int:
        """Deltas of one stream, which is opened anew a few times at least."""
        return max(2, round(min(STREAM_S, self.seconds / 4) * 1000 / INTERVAL_MS))

    @property
    def submitted(self) -> int:
        """How many background responses are handed in."""
        return round(self.queued * (1 + EXTRA_SHARE)) + PER_KEY

    @property
    def background_deltas(self) -> int:
        """So long takes each background response that the queue lasts for about the window."""
        turns = self.submitted / PER_KEY
        return max(1, round((self.seconds + RAMP_S) * DISPATCH_SHARE / turns * 1000 / INTERVAL_MS))


@dataclass(kw_only=True, slots=True)
class Found:
    """All that was seen."""

    idle_mb: dict[str, float]
    samples: list[Sample] = field(default_factory=list)
    streams: dict[str, Any] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    drained_s: float = 0.0
    cpu_cores: dict[str, float] = field(default_factory=dict)


class Soak:
    """One run on a stack."""

    def __init__(self, plan: Plan, stack: Stack, say: Progress) -> None:
        self._plan = plan
        self._stack = stack
        self._say = say
        self._pids = {part.name: part.pid for part in stack.status.parts if part.pid is not None}
        ports = {part.name: part.port for part in stack.status.parts}
        self._metrics_url = f"http://{HOST}:{ports['worker']}/metrics"

    async def run(self, upstream_port: int) -> Found:
        """Load, watch, drain, check."""
        plan, found = self._plan, Found(idle_mb=read_usage(self._pids).rss_mb)
        base_url = f"{self._stack.settings.url}/v1"
        load = Load(
            base_url=base_url,
            api_key=self._stack.admin_key,
            connections=plan.streams,
            stream=True,
            warmup_s=RAMP_S,
            seconds=plan.seconds,
            deltas=plan.stream_deltas,
            interval_ms=INTERVAL_MS,
            drain_s=STREAM_S + DRAIN_S,
        )
        model = model_name(deltas=plan.background_deltas, interval_ms=INTERVAL_MS)
        async with (
            serving(UpstreamPart(self._stack.settings.home, upstream_port)),
            aiohttp.ClientSession() as metrics,
            Backlog.opened(base_url, self._stack.admin_key) as backlog,
            generating(load) as streams,
        ):
            await backlog.submit(plan.submitted, model)
            self._say(f"{len(backlog.ids):,} background responses were accepted")
            began = streams.begin_s
            found.samples.append(await self._sample(metrics, time.monotonic() - began))
            await streams.begin()
            before = read_usage(self._pids)
            while (at_s := time.monotonic() - began) < plan.seconds:
                found.samples.append(await self._sample(metrics, at_s))
                await asyncio.sleep(min(SAMPLE_S, plan.seconds / 20))
            spent, _foreign = read_usage(self._pids).since(before, at_s)
            found.cpu_cores = {part: cpu_s / at_s for part, cpu_s in spent.items()}
            found.streams = await streams.counted()
            while time.monotonic() - began < plan.seconds * 1.5 + DRAIN_S:
                found.samples.append(await self._sample(metrics, time.monotonic() - began))
                last = found.samples[-1]
                if not last.queued + last.background + last.streams:
                    break
                await asyncio.sleep(1.0)
            found.drained_s = time.monotonic() - began - plan.seconds
            found.states, found.errors = await backlog.check(), backlog.errors
        return found

    async def _sample(self, metrics: aiohttp.ClientSession, at_s: float) -> Sample:
        async with metrics.get(self._metrics_url) as answer:
            gauges = {name: int(float(n)) for name, n in _GAUGE.findall(await answer.text())}
        rss_mb = read_usage(self._pids).rss_mb
        background = gauges.get("background_running", 0)
        streams = gauges.get("open_responses", 0) - background
        sample = Sample(at_s, gauges.get("queued", 0), background, streams, rss_mb)
        sizes = ", ".join(f"{part} {rss_mb[part]:.0f} MB" for part in GATEWAY_PARTS)
        held = f"{sample.queued:,} queued, {background:,} in the background, {streams:,} streams"
        self._say(f"{at_s:.0f} s: {held}, {sizes}")
        return sample


def judge(found: Found, plan: Plan, restarted: list[str]) -> list[Bar]:
    """Hold what was found against the bars."""
    held = max((sample.queued for sample in found.samples), default=0)
    streams = min((s.streams for s in found.samples if 0 <= s.at_s < plan.seconds), default=0)
    errors = found.errors + Counter(found.streams["errors"])
    done = found.states["completed"]
    least_streams = plan.streams * HELD_SHARE
    return [
        *memory_bars(found.samples, GATEWAY_PARTS),
        Bar("queued at once", f">= {plan.queued:,}", f"{held:,}", held >= plan.queued),
        Bar(
            "streams open in every reading",
            f">= {least_streams:,.0f}",
            f"{streams:,}",
            streams >= least_streams,
        ),
        Bar(
            "background responses completed",
            f"{plan.submitted:,}",
            f"{done:,}",
            done == plan.submitted,
        ),
        Bar("errors", "0", str(dict(errors) or 0), not errors),
        Bar("restarted parts", "0", ", ".join(restarted) or "0", not restarted),
    ]


def render(found: Found, plan: Plan, bars: list[Bar]) -> str:
    """Give the section of the page."""
    inside = [sample for sample in found.samples if sample.at_s < plan.seconds]
    shown = inside[:: max(1, len(inside) // ROWS)]
    parts = [*GATEWAY_PARTS, "kafka", "postgres"]
    idle = ["idle", "0", "0", "0", *(f"{found.idle_mb[part]:.0f}" for part in parts)]
    rows = [
        [
            f"{sample.at_s / 60:.1f}",
            *(f"{number:,}" for number in (sample.queued, sample.background, sample.streams)),
            *(f"{sample.rss_mb[part]:.0f}" for part in parts),
        ]
        for sample in (*shown, found.samples[-1])
    ]
    lag = found.streams["lag_ms"] or {"p50": 0.0, "p99": 0.0}
    cores = ", ".join(f"{part} {found.cpu_cores[part]:.2f}" for part in parts)
    load = (
        f"`make soak SECONDS={plan.seconds:.0f}`: {plan.submitted:,} background responses of "
        f"one key, {PER_KEY} of which run at a time, and {plan.streams:,} streams of "
        f"{1000 / INTERVAL_MS:g} deltas/s, each opened anew when it ends, on {CORES} cores. All "
        "settings have their defaults but the provider's `max_connections` (2,400)."
    )
    drained = (
        f"{found.streams['requests']:,} streams ended within the window, whole and in order; "
        f"lag of a delta p50 {lag['p50']:.1f} ms, p99 {lag['p99']:.1f} ms. Cores used: {cores}. "
        f"The last response ended {max(0.0, found.drained_s):.0f} s after the window."
    )
    head = ["minute", "queued", "background", "streams", *(f"{part} MB" for part in parts)]
    return "\n\n".join(
        [
            load,
            stamp(describe()),
            table(head, [idle, *rows]),
            drained,
            verdicts(bars),
        ]
    )


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the options; the environment has the same names in capitals."""
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    env = os.environ.get
    parser.add_argument("--seconds", type=float, default=env("SECONDS", "600"))
    parser.add_argument("--queued", type=int, default=env("QUEUED", "10000"))
    parser.add_argument("--streams", type=int, default=env("STREAMS", "1000"))
    parser.add_argument("--nice", type=int, default=env("NICE", "0"))
    parser.add_argument("--write", action="store_true", default=bool(env("WRITE")))
    chosen = parser.parse_args(arguments)
    if not (5 <= chosen.seconds <= 86_400 and chosen.queued > 0 and chosen.streams > 0):
        parser.error("SECONDS is 5 to 86400, QUEUED and STREAMS are at least 1")
    return chosen


def main(arguments: list[str]) -> int:
    """Give the exit code: 1 for any bar that was missed."""
    chosen = options(arguments)
    plan = Plan(chosen.seconds, chosen.queued, chosen.streams)
    say, found, restarted = Progress(), list[Found](), list[str]()
    # What is started later inherits both.
    bind(os.getpid(), frozenset(sorted(os.sched_getaffinity(0))[:CORES]), nice=chosen.nice)
    try:
        with own_stack("soak", connections=2_400) as (settings, port):

            async def body(stack: Stack) -> int:
                found.append(await Soak(plan, stack, say).run(port))
                restarted.extend(part.name for part in stack.status.parts if part.restarts)
                return 0

            run_stack(settings, say, body)
    except (StackError, TimeoutError, aiohttp.ClientError) as error:
        out.print(f"soak: {str(error) or type(error).__name__}", markup=False)
        return 1
    if not found:
        return 130
    bars = judge(found[0], plan, restarted)
    section = render(found[0], plan, bars)
    out.print(f"\n{section}\n", markup=False)
    if chosen.write:
        page = page_with_section(PAGE.read_text(encoding="utf-8"), HEADING, section)
        PAGE.write_text(page, encoding="utf-8")
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
