"""Queries and migrations on the real PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from services.artifacts.domain import Kind, Order, Query
from services.artifacts.errors import BadParameterError
from services.artifacts.store import PostgresRecords
from services.artifacts.tables import TABLES
from services.kit.database import create_engine
from services.kit.migrate import migrate
from tests.integration.artifacts.conftest import Apply
from tests.integration.artifacts.facts import FINISHED_AT, file_item, finished, image_item, png


@pytest.fixture
async def five(apply: Apply) -> list[str]:
    """Three responses with five files; return the names of their items from old to new."""
    for number, project in ((1, "research"), (2, "sales"), (3, "research")):
        items = [image_item(png(str(number)), number)]
        if number != 2:
            items.append(file_item(b"text", "notes.txt", number))
        await apply(
            finished(
                f"resp_{number}",
                items,
                project=project,
                finished_at=FINISHED_AT + timedelta(seconds=number),
            )
        )
    return ["ig_1", "msg_1", "ig_2", "ig_3", "msg_3"]


async def items(records: PostgresRecords, query: Query) -> list[str]:
    return [artifact.item_id for artifact in await records.page(query)]


async def test_pages_are_ordered_by_time_and_by_place_in_the_response(
    records: PostgresRecords, five: list[str]
) -> None:
    assert await items(records, Query(project=None, limit=10, order="asc")) == five
    assert await items(records, Query(project=None, limit=10)) == five[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_following_pages_visits_every_artifact_once(
    records: PostgresRecords, five: list[str], order: Order
) -> None:
    seen: list[str] = []
    after: str | None = None
    while True:
        page = await records.page(Query(project=None, limit=2, order=order, after=after))
        seen += [artifact.item_id for artifact in page[:2]]
        if len(page) <= 2:
            break
        after = page[1].id
    assert seen == (five if order == "asc" else five[::-1])


@pytest.mark.parametrize(
    ("project", "response_id", "kind", "expected"),
    [
        ("research", None, None, ["ig_1", "msg_1", "ig_3", "msg_3"]),
        ("sales", None, None, ["ig_2"]),
        ("none", None, None, []),
        (None, "resp_3", None, ["ig_3", "msg_3"]),
        ("sales", "resp_3", None, []),
        (None, None, "file", ["msg_1", "msg_3"]),
        ("research", "resp_1", "image", ["ig_1"]),
    ],
)
@pytest.mark.usefixtures("five")
async def test_a_page_holds_what_was_asked_for_and_may_be_seen(
    records: PostgresRecords,
    project: str | None,
    response_id: str | None,
    kind: Kind | None,
    expected: Sequence[str],
) -> None:
    query = Query(project=project, limit=10, order="asc", response_id=response_id, kind=kind)

    assert await items(records, query) == expected


@pytest.mark.usefixtures("five")
async def test_an_artifact_of_another_project_is_no_cursor_and_not_found(
    records: PostgresRecords,
) -> None:
    [foreign] = await records.page(Query(project="sales", limit=10))

    assert await records.find(foreign.id, project="research") is None
    assert await records.find(foreign.id, project="sales") == foreign
    assert await records.find(foreign.id, project=None) == foreign
    with pytest.raises(BadParameterError) as refusal:
        await records.page(Query(project="research", limit=10, after=foreign.id))
    assert refusal.value.param == "after"


async def test_migrations_go_up_and_down_and_make_the_tables_that_the_code_knows(
    database_url: str,
) -> None:
    engine = create_engine(database_url, pool_size=1, name="test")
    known = {
        table.name: {column.name: column.nullable for column in table.columns}
        for table in TABLES.sorted_tables
    }
    try:
        await migrate(engine, service="artifacts")
        assert await columns(engine) == known
        await migrate(engine, service="artifacts", target="base")
        assert await columns(engine) == {}
        await migrate(engine, service="artifacts")
        assert await columns(engine) == known
    finally:
        await engine.dispose()


async def columns(engine: AsyncEngine) -> dict[str, dict[str, bool]]:
    """Return the columns of each table, and whether they may be null."""
    async with engine.connect() as connection:
        return await connection.run_sync(
            lambda sync: {
                table: {
                    column["name"]: column["nullable"]
                    for column in inspect(sync).get_columns(table, schema="artifacts")
                }
                for table in inspect(sync).get_table_names(schema="artifacts")
                if table != "alembic_version"
            }
        )
