"""`make scale`: 1, 2 and 4 intakes and workers on this machine, and what a response leaves behind.

With two cores more processes can't answer more; what is seen is that nothing serialises them: the
rate stays, and so does the CPU per request. `SIZES=1,2` measures fewer; `SECONDS` is of each load.
`WRITE=1` puts the figures into docs/performance.md and the sizing into docs/operations.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import aiohttp

from infra.cli.output import Progress, out
from infra.local.errors import StackError
from infra.local.foreground import run_stack
from infra.local.parts.postgres import PostgresServer
from infra.local.process import serving
from infra.local.settings import CHECKOUT
from infra.local.stack import Stack
from tests.load.figures import JSON_100, Scenario
from tests.load.footprint import Footprint, read_footprint
from tests.load.generator import Load
from tests.load.machine import bind, read_usage
from tests.load.report import page_with_section
from tests.load.runner import generating
from tests.load.scale_report import HEADING, SIZING_HEADING, render, render_sizing
from tests.load.scale_rows import LOADS, Row, by_kind
from tests.load.stacks import UpstreamPart, own_stack
from tests.load.upstream import HOST

PAGES = CHECKOUT / "docs" / "performance.md", CHECKOUT / "docs" / "operations.md"
SIZES = (1, 2, 4)
WARMUP_S = 4.0
REST_S = 3.0


class Scale:
    """The loads on one stack."""

    def __init__(self, size: int, seconds: float, stack: Stack, say: Progress) -> None:
        self._size, self._seconds, self._stack, self._say = size, seconds, stack, say
        parts = {part.name: part for part in stack.status.parts if part.pid is not None}
        self._pids = {name: part.pid for name, part in parts.items() if part.pid is not None}
        intakes = [part.port for name, part in parts.items() if name.startswith("intake")]
        self._urls = [f"http://{HOST}:{port}/v1" for port in intakes]
        postgres = PostgresServer(stack.settings.home)
        postgres.port = parts["postgres"].port
        self._database_url = postgres.url

    async def run(self, upstream_port: int) -> list[Row]:
        """Give a row for each load, after one that only warms up."""
        async with serving(UpstreamPart(self._stack.settings.home, upstream_port)):
            await self._load(JSON_100)
            rows = []
            for scenario in LOADS:
                await asyncio.sleep(REST_S)
                rows.append(await self._load(scenario))
                self._say(
                    f"{self._size} of each, {scenario.title}: "
                    f"{rows[-1].answers / self._seconds:,.0f}/s, {rows[-1].errors} errors"
                )
        return rows

    async def _load(self, scenario: Scenario) -> Row:
        load = Load(
            base_url=self._urls[0],
            more_urls=self._urls[1:],
            api_key=self._stack.admin_key,
            connections=scenario.connections,
            stream=scenario.stream,
            warmup_s=WARMUP_S,
            seconds=self._seconds,
            deltas=scenario.deltas,
            interval_ms=scenario.interval_ms,
        )
        async with generating(load) as generator:
            await generator.begin()
            left, before = await self._footprint(), read_usage(self._pids)
            await generator.end()
            after, left = read_usage(self._pids), (await self._footprint()).since(left)
            counted = await generator.counted()
        cpu_s, foreign = after.since(before, self._seconds)
        return Row(
            size=self._size,
            scenario=scenario,
            seconds=self._seconds,
            counted=counted,
            cpu_s=by_kind(cpu_s),
            rss_mb=by_kind(after.rss_mb),
            foreign_cores=foreign,
            left=left,
        )

    async def _footprint(self) -> Footprint:
        data = self._stack.settings.home / "data" / "kafka"
        return await read_footprint(data, self._database_url)


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the options; the environment has the same names in capitals."""
    parser = argparse.ArgumentParser(
        prog="make scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    env = os.environ.get
    parser.add_argument("--seconds", type=float, default=env("SECONDS", "8"))
    parser.add_argument("--sizes", default=env("SIZES", ",".join(map(str, SIZES))))
    parser.add_argument("--nice", type=int, default=env("NICE", "0"))
    parser.add_argument("--write", action="store_true", default=bool(env("WRITE")))
    chosen = parser.parse_args(arguments)
    if not set(chosen.sizes.split(",")) <= set(map(str, range(1, 9))):
        parser.error("SIZES is a list of numbers from 1 to 8")
    chosen.sizes = [int(size) for size in chosen.sizes.split(",")]
    if not 0 < chosen.seconds <= 600:
        parser.error("SECONDS is at most 600")
    return chosen


def main(arguments: list[str]) -> int:
    """Give the exit code: 1 when an answer was wrong."""
    chosen = options(arguments)
    bind(os.getpid(), None, nice=chosen.nice)
    rows: list[Row] = []
    try:
        for size in chosen.sizes:
            say, before = Progress(), len(rows)
            with own_stack(f"scale-{size}", intakes=size, workers=size) as (settings, port):

                async def body(stack: Stack, size: int = size, port: int = port) -> int:
                    scale = Scale(size, chosen.seconds, stack, say)  # noqa: B023 - run at once
                    rows.extend(await scale.run(port))
                    return 0

                run_stack(settings, say, body)
            if len(rows) == before:
                return 130
    except (StackError, TimeoutError, aiohttp.ClientError) as error:
        out.print(f"scale: {str(error) or type(error).__name__}", markup=False)
        return 1
    sections = (HEADING, render(rows)), (SIZING_HEADING, render_sizing(rows))
    for page, (heading, section) in zip(PAGES, sections, strict=True):
        out.print(f"\n{section}\n", markup=False)
        if chosen.write:
            text = page_with_section(page.read_text(encoding="utf-8"), heading, section)
            page.write_text(text, encoding="utf-8")
    return 1 if any(row.errors for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
