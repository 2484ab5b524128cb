"""The ledger in PostgreSQL: lines are only ever added, reports are summed up by the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    Numeric,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.costs import CostRecordedV1
from contracts.principal import Principal
from services.costs.domain.charges import Charge
from services.costs.domain.reports import Group, LinesPage, LinesQuery, Report, ReportQuery, Sums
from services.costs.errors import LedgerRefusedError
from services.costs.service import Recorded
from services.kit.clock import Clock
from services.kit.codec import dumps
from services.kit.database import metadata

ledger = Table(
    "ledger",
    metadata("costs"),
    Column("line_id", Text, primary_key=True),
    Column("response_id", Text, nullable=False),
    Column("attempt", Integer),
    Column("project", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("user", Text),
    Column("chat", Text),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("tool", Text),
    Column("unit", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("unit_price_usd", Numeric),
    Column("cost_usd", Numeric(20, 12)),
    Column("unpriced_reason", Text),
    Column("price_source", Text),
    Column("service_tier", Text),
    Column("estimated", Boolean, nullable=False),
    Column("occurred_at", TIMESTAMP(timezone=True), nullable=False),
    Column("recorded_at", TIMESTAMP(timezone=True), nullable=False),
)

# One parameter for the whole batch. The lines of an attempt are kept out when another attempt of
# the same response is in the ledger; `attempt` is null for tool calls, which are always let in.
_ADD = text("""
    INSERT INTO costs.ledger
    SELECT fresh.*
    FROM jsonb_populate_recordset(NULL::costs.ledger, CAST(:lines AS jsonb)) AS fresh
    WHERE NOT EXISTS (
        SELECT 1 FROM costs.ledger AS old
        WHERE old.response_id = fresh.response_id AND old.attempt <> fresh.attempt
    )
    ON CONFLICT (line_id) DO NOTHING
    RETURNING line_id
""")

_KNOWN = (
    select(ledger)
    .where(ledger.c.line_id == any_(bindparam("ids", type_=ARRAY(Text))))
    .order_by(ledger.c.line_id)
)

_DIMENSIONS: dict[str, ColumnElement[Any]] = {
    "model": func.nullif(ledger.c.model, ""),
    "key": ledger.c.key_id,
    "chat": ledger.c.chat,
    "day": func.to_char(func.timezone("UTC", ledger.c.occurred_at), "YYYY-MM-DD"),
    "project": ledger.c.project,
    "user": ledger.c.user,
    "provider": ledger.c.provider,
    "tool": ledger.c.tool,
    "service_tier": ledger.c.service_tier,
    "response_id": ledger.c.response_id,
}
# Classes of SQLSTATE that say the data is at fault: data exceptions, broken constraints, limits.
_DATA_FAULTS = ("22", "23", "54")


class LedgerStore:
    """The ledger of this installation; every method uses one connection of the pool."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def record(self, charges: Sequence[Charge]) -> list[Recorded]:
        """Add new lines in one statement and commit; return what is under their ids now."""
        now = self._clock.now()
        lines = {
            line.line_id: (_as_stored(line), charge.attempt)
            for charge in charges
            for line in charge.lines
        }
        # In one order everywhere, so that replicas at the same lines wait and do not deadlock.
        rows = [_row(*lines[line_id], now) for line_id in sorted(lines)]
        try:
            async with self._engine.begin() as connection:
                result = await connection.execute(_ADD, {"lines": dumps(rows).decode()})
                added = {row.line_id for row in result}
                known = [line_id for line_id in lines if line_id not in added]
                recorded = [Recorded(lines[line_id][0], now) for line_id in added]
                if known:
                    # A statement of its own also sees what another replica has just added.
                    found = await connection.execute(_KNOWN, {"ids": known})
                    recorded += [
                        Recorded(_line(row), row["recorded_at"]) for row in found.mappings()
                    ]
                return sorted(recorded, key=lambda one: one.line.line_id)
        except DBAPIError as error:
            if str(getattr(error.orig, "sqlstate", "")).startswith(_DATA_FAULTS):
                raise LedgerRefusedError(str(error.orig)) from error
            raise

    async def report(self, query: ReportQuery) -> Report:
        """Sum up lines; a page of groups, and the total over all groups."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(_report(query))).mappings().all()
            total = (await connection.execute(_sums(query, ()))).mappings().one()
        groups = tuple(
            Group({name: row[name] for name in query.group_by}, _to_sums(row))
            for row in rows[: query.limit]
        )
        return Report(groups, _to_sums(total), has_more=len(rows) > query.limit)

    async def lines(self, query: LinesQuery) -> LinesPage:
        """Return a page of the lines of one response."""
        statement = select(ledger).where(ledger.c.response_id == query.response_id)
        if query.project is not None:
            statement = statement.where(ledger.c.project == query.project)
        if query.after is not None:
            statement = statement.where(ledger.c.line_id > query.after)
        statement = statement.order_by(ledger.c.line_id).limit(query.limit + 1)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        page = tuple(_line(row) for row in rows[: query.limit])
        return LinesPage(page, has_more=len(rows) > query.limit)


def _report(query: ReportQuery) -> Select[Any]:
    groups = _sums(query, query.group_by).subquery()
    names = [groups.c[name] for name in query.group_by]
    in_order = [groups.c.day] if "day" in query.group_by else []
    return (
        select(groups)
        .order_by(*in_order, groups.c.cost_usd.desc().nulls_last(), *names)
        .limit(query.limit + 1)
        .offset(query.offset)
    )


def _sums(query: ReportQuery, group_by: Sequence[str]) -> Select[Any]:
    """Sum by unit first, so that the quantities of a group fit into one JSON object."""
    names = [_DIMENSIONS[name].label(name) for name in group_by]
    units = (
        select(
            *names,
            ledger.c.unit,
            func.sum(ledger.c.quantity).label("quantity"),
            func.sum(ledger.c.cost_usd).label("cost_usd"),
            func.count().filter(ledger.c.cost_usd.is_(None)).label("unpriced_lines"),
            func.count().filter(ledger.c.estimated).label("estimated_lines"),
        )
        .where(*_conditions(query))
        .group_by(*names, ledger.c.unit)
        .subquery()
    )
    columns = [units.c[name] for name in group_by]
    return select(
        *columns,
        func.sum(units.c.cost_usd).label("cost_usd"),
        cast(func.coalesce(func.sum(units.c.unpriced_lines), 0), BigInteger).label(
            "unpriced_lines"
        ),
        cast(func.coalesce(func.sum(units.c.estimated_lines), 0), BigInteger).label(
            "estimated_lines"
        ),
        func.jsonb_object_agg(units.c.unit, cast(units.c.quantity, BigInteger))
        .filter(units.c.unit.is_not(None))
        .label("quantities"),
    ).group_by(*columns)


def _conditions(query: ReportQuery) -> list[ColumnElement[bool]]:
    conditions = [_DIMENSIONS[name] == value for name, value in query.filters.items()]
    if query.project is not None:
        conditions.append(ledger.c.project == query.project)
    if query.start is not None:
        conditions.append(ledger.c.occurred_at >= query.start)
    if query.end is not None:
        conditions.append(ledger.c.occurred_at < query.end)
    return conditions


def _to_sums(row: Mapping[Any, Any]) -> Sums:
    unpriced: int = row["unpriced_lines"]
    nothing = None if unpriced else Decimal(0)
    return Sums(
        cost_usd=row["cost_usd"] if row["cost_usd"] is not None else nothing,
        unpriced_lines=unpriced,
        estimated_lines=row["estimated_lines"],
        quantities=row["quantities"] or {},
    )


def _row(line: CostRecordedV1, attempt: int | None, recorded_at: datetime) -> dict[str, Any]:
    fields = line.model_dump()
    owner = fields.pop("principal")
    return {**fields, **owner, "attempt": attempt, "recorded_at": recorded_at}


def _as_stored(line: CostRecordedV1) -> CostRecordedV1:
    """Return the line as the ledger will have it, so that it need not be read back."""
    amounts = {
        "cost_usd": _plain(line.cost_usd),
        "unit_price_usd": _plain(line.unit_price_usd),
    }
    owner = line.principal
    texts = (
        line.line_id,
        line.response_id,
        line.model,
        line.provider,
        line.tool,
        line.service_tier,
    )
    owners = (owner.project, owner.key_id, owner.user, owner.chat)
    if not any(text is not None and "\0" in text for text in (*texts, *owners)):
        return line.model_copy(update=amounts)
    # PostgreSQL has no NUL in texts; nobody is spared a cost by having one in a name.
    fields = {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in line.model_dump(exclude={"principal"}).items()
    }
    holder = {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in owner.model_dump().items()
    }
    return CostRecordedV1(**{**fields, **amounts}, principal=Principal(**holder))


def _line(row: Mapping[Any, Any]) -> CostRecordedV1:
    fields = {name: row[name] for name in CostRecordedV1.model_fields if name != "principal"}
    principal = Principal(
        project=row["project"], key_id=row["key_id"], user=row["user"], chat=row["chat"]
    )
    return CostRecordedV1(
        **{
            **fields,
            "cost_usd": _plain(row["cost_usd"]),
            "unit_price_usd": _plain(row["unit_price_usd"]),
            "occurred_at": row["occurred_at"].astimezone(UTC),
        },
        principal=principal,
    )


def _plain(amount: Decimal | None) -> Decimal | None:
    # The column pads with zeros up to its scale.
    return None if amount is None else amount.normalize()
