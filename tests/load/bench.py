"""One measurement: the running stack and the upstream pinned to cores, each load in its turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.process import serving
from infra.local.stack import Stack
from tests.load.figures import (
    ANTIPHON,
    GATEWAY_PARTS,
    PEERS,
    SCENARIOS,
    UPSTREAM,
    Figures,
    Run,
    Scenario,
)
from tests.load.gateways import Gateway, Peers, peer_version
from tests.load.generator import Load
from tests.load.machine import Cores, bind, describe, read_usage, split_cores
from tests.load.runner import generating
from tests.load.stacks import UpstreamPart
from tests.load.upstream import HOST

SETTLED_CORES = 0.25
SETTLE_STEP_S, SETTLE_STEPS = 0.5, 20
WARM_S = 3.0
DRAIN_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which kinds of load, how long each after which warm-up, the upstream's port, the peers.

    `nice` is the priority of everything while it is measured; below 0 only root may have it.
    """

    kinds: Collection[str]
    seconds: float
    warmup_s: float
    upstream_port: int
    peers: Collection[str] = ()
    nice: int = 0


class Bench:
    """Runs every chosen load at every gateway, side by side in time."""

    def __init__(self, choice: Choice, say: Report) -> None:
        self._choice = choice
        self._say = say
        self._all: dict[str, int] = {}

    async def measure(self, stack: Stack) -> Figures:
        """Give the figures; wrong answers and restarted parts are among their problems."""
        pids = {part.name: part.pid for part in stack.status.parts if part.pid is not None}
        own_url = f"{stack.settings.url}/v1"
        own = Gateway(ANTIPHON, own_url, stack.admin_key, pids, GATEWAY_PARTS)
        port, home = self._choice.upstream_port, stack.settings.home
        cores = split_cores(os.sched_getaffinity(0))
        figures = Figures(machine=describe(), pinning=_pin(own, cores, self._choice.nice))
        async with serving(UpstreamPart(home, port)), AsyncExitStack() as stay:
            gateways = [Gateway(UPSTREAM, f"http://{HOST}:{port}/v1", "unused"), own]
            gateways += await self._peers(stay, home, cores, figures)
            self._all = {name: pid for gateway in gateways for name, pid in gateway.pids.items()}
            await self._settle()
            figures.idle_rss_mb = read_usage(self._all).rss_mb
            # Compilers and caches get warm before anything counts but errors.
            runs = [await self._run(SCENARIOS[0], gateway, WARM_S) for gateway in gateways[1:]]
            for scenario in SCENARIOS:
                if scenario.kind in self._choice.kinds:
                    # What people do is asked of Antiphon alone; its peers have the plain loads.
                    for gateway in gateways[:2] if scenario.kind == "users" else gateways:
                        await self._settle()
                        figures.runs.append(
                            await self._run(scenario, gateway, self._choice.seconds)
                        )
                        self._say(str(figures.runs[-1]))
        runs += figures.runs
        # Errors of a peer stand in the table; they are not ours to mend.
        figures.problems = [
            f"{run.scenario.title}, {run.gateway}: errors {run.counted['errors']}"
            for run in runs
            if run.errors and run.gateway not in PEERS
        ]
        restarted = [part.name for part in stack.status.parts if part.restarts]
        figures.problems += [f"{name} was restarted" for name in restarted]
        return figures

    async def _peers(
        self, stay: AsyncExitStack, home: Path, cores: Cores | None, figures: Figures
    ) -> list[Gateway]:
        """Start the peers that can be had until `stay` ends, and note why others can't."""
        started = []
        for name in self._choice.peers:
            peer = Peers.known[name](name, home, self._choice.upstream_port)
            here = Peers.running(peer, self._say, cores.gateway if cores else None)
            try:
                started.append(await stay.enter_async_context(here))
                figures.peers[name] = peer_version(name)
                self._say(f"{name} {figures.peers[name]}: ready")
            except (StackError, OSError) as error:
                figures.absent[name] = (
                    error.problem if isinstance(error, StackError) else str(error)
                )
                self._say(f"{name} is not measured: {error}")
        return started

    async def _settle(self) -> None:
        """Wait, with a bound, until what the last load left behind is worked off."""
        before = read_usage(self._all)
        for _ in range(SETTLE_STEPS):
            await asyncio.sleep(SETTLE_STEP_S)
            now = read_usage(self._all)
            cpu_s, _foreign = now.since(before, SETTLE_STEP_S)
            if sum(cpu_s.values()) < SETTLED_CORES * SETTLE_STEP_S:
                return
            before = now

    async def _run(self, scenario: Scenario, gateway: Gateway, seconds: float) -> Run:
        load = Load(
            base_url=gateway.base_url,
            api_key=gateway.api_key,
            connections=scenario.connections,
            stream=scenario.stream,
            warmup_s=self._choice.warmup_s,
            seconds=seconds,
            deltas=scenario.deltas,
            interval_ms=scenario.interval_ms,
            think_ms=scenario.think_ms,
            drain_s=DRAIN_S,
        )
        async with generating(load) as generator:
            await generator.begin()
            before = read_usage(gateway.pids)
            await generator.end()
            after = read_usage(gateway.pids)
            counted = await generator.counted()
        cpu_s, foreign = after.since(before, seconds)
        return Run(
            scenario=scenario,
            gateway=gateway.name,
            seconds=seconds,
            counted=counted,
            cpu_s=cpu_s,
            rss_mb=after.rss_mb,
            gateway_cores=sum(cpu_s[part] for part in gateway.core_parts) / seconds,
            foreign_cores=foreign,
        )


def _pin(own: Gateway, cores: Cores | None, nice: int) -> str:
    """Bind the gateway to one core and all else to the others; say so in a sentence."""
    priority = f", at priority {nice}" if nice else ""
    if cores is None:
        bind(os.getpid(), None, nice=nice)
        return f"One core for everything{priority}."
    # Children that come later inherit what this process has.
    bind(os.getpid(), cores.rest, nice=nice)
    for part in own.core_parts:
        bind(own.pids[part], cores.gateway)
    return f"Intake and worker share one core, all else has {len(cores.rest)}{priority}."
