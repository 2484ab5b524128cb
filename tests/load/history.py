"""What intake's queries cost with a long past: `python -m tests.load.history ROWS=1000000`.

Starts a PostgreSQL of its own, fills intake's schema and measures every query that intake makes.
`WRITE=1` puts the figures into docs/performance.md, `TIMES=5000` asks each query more often, and
`KEEP=1` keeps the data, which a later run with it takes up again.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time

import asyncpg
import orjson

from infra.cli.output import Progress, out
from infra.local.parts.postgres import PostgresServer
from infra.local.process import serving
from infra.local.settings import CHECKOUT, LocalSettings
from services.kit.database import create_engine
from services.kit.migrate import migrate
from tests.load.dataset import DataSet, fill
from tests.load.machine import describe
from tests.load.queries import BAR_P95_MS, CONNECTIONS, Queries, Timing, measure
from tests.load.report import page_with_section, stamp, table

PAGE = CHECKOUT / "docs" / "performance.md"
HEADING = "## With many stored responses"
METHOD = f"""\
`python -m tests.load.history ROWS=1000000` starts a PostgreSQL of its own, fills intake's schema
with a past and asks each query of intake at random places, through intake's own stores, over
{CONNECTIONS} connections at once."""
DEFAULTS = {"ROWS": 1_000_000, "TIMES": 2_000, "WRITE": 0, "KEEP": 0}
MOST_ROWS = 20_000_000
MOST_KNOWN = 100_000
"""Places of each kind that queries choose from."""


def options(arguments: list[str]) -> dict[str, int]:
    """Read NAME=NUMBER arguments; exits with 2 when one is wrong."""
    given = dict(DEFAULTS)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in given or not value.isdecimal():
            sys.stderr.write(f"{argument}: expected some of {' '.join(DEFAULTS)} as NAME=NUMBER\n")
            raise SystemExit(2)
        given[name] = int(value)
    if not 10_000 <= given["ROWS"] <= MOST_ROWS or not given["TIMES"]:
        sys.stderr.write(f"ROWS is from 10000 to {MOST_ROWS}, TIMES at least 1\n")
        raise SystemExit(2)
    return given


async def run(chosen: dict[str, int], say: Progress) -> tuple[str, list[Timing]]:
    """Fill, measure, and give a sentence about the data with the timings."""
    home = LocalSettings.load().home / "history"
    kept = home / "known.json"
    if not (chosen["KEEP"] and kept.is_file()):
        shutil.rmtree(home, ignore_errors=True)
    timings = []
    try:
        async with serving(PostgresServer(home)) as server:
            engine = create_engine(server.url, pool_size=CONNECTIONS, name="history")
            await migrate(engine, service="intake")
            began = time.monotonic()
            if kept.is_file():
                known = DataSet(**orjson.loads(kept.read_bytes()))
            else:
                known = (await fill(server.url, chosen["ROWS"])).sample(MOST_KNOWN)
                kept.write_bytes(orjson.dumps(known))
            say(f"filled in {time.monotonic() - began:,.0f} s")
            data = await _sizes(server.url)
            say(data)
            queries = Queries(engine, known)
            for name, (ask, share) in queries.all().items():
                times = max(chosen["TIMES"] // share, 20)
                timings.append(await measure(ask, name=name, times=times))
                say(str(timings[-1]))
            await engine.dispose()
    finally:
        if not chosen["KEEP"]:
            shutil.rmtree(home, ignore_errors=True)
    return data, timings


async def _sizes(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        words = []
        for name in ("responses", "conversations", "conversation_items", "idempotency_keys"):
            number = await connection.fetchval(f"SELECT count(*) FROM intake.{name}")
            words.append(f"{number:,} {name.replace('_', ' ')}")
        total = await connection.fetchval("SELECT pg_database_size(current_database())")
        return f"{', '.join(words)}: {total / 1e9:.1f} GB"
    finally:
        await connection.close()


def render(data: str, timings: list[Timing]) -> str:
    """Give the section of the page."""
    head = ["query", "asked", "p50 ms", "p95 ms", "p99 ms", f"p95 < {BAR_P95_MS:.0f} ms"]
    rows = [
        [
            timing.name,
            f"{timing.asked:,}",
            *(f"{value:.1f}" for value in (timing.p50, timing.p95, timing.p99)),
            "met" if timing.met else "missed",
        ]
        for timing in timings
    ]
    return "\n\n".join(
        [
            METHOD,
            stamp(describe()),
            f"{data}.",
            table(head, rows),
        ]
    )


def main(arguments: list[str]) -> int:
    """Give the exit code: 0 whatever the bars say."""
    chosen = options(arguments)
    data, timings = asyncio.run(run(chosen, Progress()))
    section = render(data, timings)
    out.print(f"\n{section}\n", markup=False)
    if chosen["WRITE"]:
        PAGE.write_text(
            page_with_section(PAGE.read_text(encoding="utf-8"), HEADING, section), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
