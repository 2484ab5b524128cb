"""The past that queries are measured on: as long as asked for, and every query finds its way in."""

from __future__ import annotations

import asyncpg
import pytest

from services.kit.database import create_engine
from services.kit.migrate import migrate
from tests.load.dataset import fill
from tests.load.history import options, render
from tests.load.queries import Queries, Timing, measure

ROWS = 3_000


async def test_every_query_of_intake_is_asked_on_a_filled_database(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=4, name="history-tests")
    await migrate(engine, service="intake")
    known = await fill(database_url, ROWS)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM intake.responses") >= ROWS
    projects = "SELECT count(DISTINCT project) FROM intake.responses"
    assert await connection.fetchval(projects) > 100
    await connection.close()

    queries = Queries(engine, known.sample(100))
    for name, (ask, _) in queries.all().items():
        timing = await measure(ask, name=name, times=4)
        assert timing.asked == 4
        assert 0 < timing.p50 <= timing.p95 <= timing.p99
    await engine.dispose()


def test_the_section_has_a_row_for_every_query() -> None:
    assert "| retrieve |    10 |" in render("data", [Timing("retrieve", 10, 1.0, 2.0, 3.0)])


@pytest.mark.parametrize("argument", ["ROWS=9", "ROWS=x", "SPEED=1", "TIMES=0"])
def test_options_that_make_no_sense_are_refused(argument: str) -> None:
    with pytest.raises(SystemExit):
        options([argument])
    assert options(["ROWS=20000"])["ROWS"] == 20_000
