"""The migrations of the ledger on the real PostgreSQL, up and down."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.costs.store import ledger
from services.kit.migrate import migrate

COLUMNS = text(
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = 'costs' AND table_name = 'ledger' ORDER BY ordinal_position"
)


async def columns(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(COLUMNS)).scalars())


async def test_the_migrations_give_the_table_that_the_store_uses(engine: AsyncEngine) -> None:
    assert await columns(engine) == [column.name for column in ledger.columns]


async def test_the_migrations_go_down_and_up_again(engine: AsyncEngine) -> None:
    await migrate(engine, service="costs", target="base")
    assert await columns(engine) == []
    await migrate(engine, service="costs")
    await migrate(engine, service="costs")
    assert await columns(engine) != []
