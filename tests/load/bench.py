"""One measurement: the running stack and the upstream pinned to cores, each load in its turn."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.probes import http_status
from infra.local.process import serving
from infra.local.settings import CHECKOUT
from infra.local.stack import Stack
from tests.load.figures import (
    ANTIPHON,
    GATEWAY_PARTS,
    SCENARIOS,
    UPSTREAM,
    Figures,
    Run,
    Scenario,
)
from tests.load.generator import Load
from tests.load.machine import bind, describe, read_usage, split_cores
from tests.load.upstream import HOST

SETTLED_CORES = 0.25
SETTLE_STEP_S, SETTLE_STEPS = 0.5, 60
START_S = 60.0
DRAIN_S = 30.0


class UpstreamPart:
    """The upstream as a process."""

    name = "upstream"

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port: int | None = port

    def environment(self) -> dict[str, str]:
        return {}

    async def prepare(self, _report: Report) -> Command:
        program = (sys.executable, "-m", "tests.load.upstream")
        return Command(argv=(*program, "--port", str(self.port)), cwd=CHECKOUT)

    async def is_ready(self) -> bool:
        return await http_status(self.port, "/healthz") == HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class Gateway:
    """What stands before the upstream; its `core_parts` have a core to themselves.

    Another gateway, started elsewhere, is one more of these in the list.
    """

    name: str
    base_url: str
    api_key: str
    pids: Mapping[str, int] = field(default_factory=dict)
    core_parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which kinds of load, how long each after which warm-up, and the upstream's port.

    `nice` is the priority of everything while it is measured; below 0 only root may have it.
    """

    kinds: Collection[str]
    seconds: float
    warmup_s: float
    upstream_port: int
    nice: int = 0


class Bench:
    """Runs every chosen load at every gateway, side by side in time."""

    def __init__(self, choice: Choice, say: Report) -> None:
        self._choice = choice
        self._say = say

    async def measure(self, stack: Stack) -> Figures:
        """Give the figures; wrong answers and restarted parts are among their problems."""
        pids = {part.name: part.pid for part in stack.status.parts if part.pid is not None}
        own_url = f"{stack.settings.url}/v1"
        own = Gateway(ANTIPHON, own_url, stack.admin_key, pids, GATEWAY_PARTS)
        port = self._choice.upstream_port
        gateways = [Gateway(UPSTREAM, f"http://{HOST}:{port}/v1", "unused"), own]
        figures = Figures(machine=describe(), pinning=_pin(gateways, self._choice.nice))
        async with serving(UpstreamPart(stack.settings.home, port)):
            await _settle(own)
            figures.idle_rss_mb = read_usage(pids).rss_mb
            # Compilers and caches of the servers get warm before anything counts but errors.
            warm = await self._run(SCENARIOS[0], own)
            for scenario in SCENARIOS:
                if scenario.kind in self._choice.kinds:
                    for gateway in gateways:
                        await _settle(own)
                        figures.runs.append(await self._run(scenario, gateway))
                        self._say(str(figures.runs[-1]))
        figures.problems = [
            f"{run.scenario.title}, {run.gateway}: errors {run.counted['errors']}"
            for run in (warm, *figures.runs)
            if run.errors
        ]
        restarted = [part.name for part in stack.status.parts if part.restarts]
        figures.problems += [f"{name} was restarted" for name in restarted]
        return figures

    async def _run(self, scenario: Scenario, gateway: Gateway) -> Run:
        seconds = self._choice.seconds
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
        argv = (sys.executable, "-m", "tests.load.generator", json.dumps(asdict(load)))
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, cwd=CHECKOUT)
        try:
            async with asyncio.timeout(START_S + load.warmup_s + seconds + DRAIN_S):
                begin_s = (await _line(process))["begin_s"]
                await asyncio.sleep(begin_s - time.monotonic())
                before = read_usage(gateway.pids)
                await asyncio.sleep(begin_s + seconds - time.monotonic())
                after = read_usage(gateway.pids)
                counted = await _line(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
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


async def _line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    if not (line := await process.stdout.readline()):
        raise StackError("The load generator ended early", fix="Read what it wrote above")
    return dict(json.loads(line))


async def _settle(gateway: Gateway) -> None:
    """Wait, with a bound, until what the last load left behind is worked off."""
    before = read_usage(gateway.pids)
    for _ in range(SETTLE_STEPS):
        await asyncio.sleep(SETTLE_STEP_S)
        now = read_usage(gateway.pids)
        cpu_s, _foreign = now.since(before, SETTLE_STEP_S)
        if sum(cpu_s.values()) < SETTLED_CORES * SETTLE_STEP_S:
            return
        before = now


def _pin(gateways: list[Gateway], nice: int) -> str:
    """Bind the gateways to one core and all else to the others; say so in a sentence."""
    cores = split_cores(os.sched_getaffinity(0))
    priority = f", at priority {nice}" if nice else ""
    if cores is None:
        bind(os.getpid(), None, nice=nice)
        return f"One core for everything{priority}."
    # Children that come later inherit what this process has.
    bind(os.getpid(), cores.rest, nice=nice)
    for gateway in gateways:
        for part in gateway.core_parts:
            bind(gateway.pids[part], cores.gateway)
    return f"Intake and worker share one core, all else has {len(cores.rest)}{priority}."
