"""The ledger on the real PostgreSQL: lines are added once, whoever adds them and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from secrets import token_hex
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.event import Envelope
from contracts.principal import Principal
from contracts.responses import ClaimCheck
from services.costs.domain.charges import Charge, charge_response, charge_tool_result
from services.costs.domain.reports import LinesQuery, ReportQuery
from services.costs.errors import LedgerRefusedError
from services.costs.service import Bookkeeper, Recorded
from services.costs.store import LedgerStore
from tests.unit.costs.facts import (
    BOOK,
    FINISHED,
    envelope,
    finished,
    response,
    tool_result,
    usage,
)


def charge(owner: Principal, response_id: str, used: Any = None, **fields: Any) -> Charge:
    fact = finished(response_id=response_id, principal=owner, **fields)
    return charge_response(fact, response(usage=used or usage()), BOOK)


def new_id() -> str:
    return f"resp_{uuid4().hex}"


async def quantities(ledger: LedgerStore, response_id: str) -> dict[str, int]:
    page = await ledger.lines(LinesQuery(response_id=response_id, project=None))
    return {line.unit: line.quantity for line in page.lines}


async def test_a_line_comes_back_as_it_was_written(ledger: LedgerStore, owner: Principal) -> None:
    charges = [
        charge(owner, new_id(), usage(1_234_567, 7, cached=89), service_tier="default"),
        charge(owner, new_id(), model="smollm2-135m", provider="local", estimated_usage=True),
        charge_tool_result(tool_result(response_id=new_id(), principal=owner), FINISHED, BOOK),
    ]
    recorded = await ledger.record(charges)
    expected = {line.line_id: line for charge in charges for line in charge.lines}
    assert {one.line.line_id: one.line for one in recorded} == expected
    for charged in charges:
        page = await ledger.lines(LinesQuery(response_id=charged.response_id, project=None))
        assert {line.line_id: line for line in page.lines} == {
            line.line_id: line for line in charged.lines
        }


async def test_lines_that_come_again_stay_as_they_were(
    ledger: LedgerStore, owner: Principal
) -> None:
    response_id = new_id()
    first = await ledger.record([charge(owner, response_id)])
    dearer = charge(owner, response_id, model="gpt-5")
    assert await ledger.record([dearer, dearer]) == first


async def test_the_first_attempt_that_is_recorded_counts(
    ledger: LedgerStore, owner: Principal
) -> None:
    response_id = new_id()
    await ledger.record([charge(owner, response_id, usage(100, 0), attempt=2)])
    call = tool_result(response_id=response_id, principal=owner)
    await ledger.record(
        [
            charge(owner, response_id, usage(100, 50, cached=80), attempt=1),
            charge_tool_result(call, FINISHED, BOOK),
        ]
    )
    assert await quantities(ledger, response_id) == {"input_tokens": 100, "tool_calls": 1}


async def test_replicas_at_the_same_lines_add_them_once_and_all_know_them(
    ledger: LedgerStore, owner: Principal
) -> None:
    charges = [charge(owner, new_id()) for _ in range(50)]
    orders = [charges, charges[::-1], charges, charges[::-1]]
    answers = await asyncio.gather(*(ledger.record(order) for order in orders))
    assert [len(answer) for answer in answers] == [100] * 4
    assert answers[0] == answers[1] == answers[2] == answers[3]


async def test_a_text_that_postgresql_cannot_hold_does_not_spare_its_sender_the_cost(
    ledger: LedgerStore, owner: Principal
) -> None:
    strange = owner.model_copy(update={"chat": "chat\0"})
    recorded = await ledger.record([charge(strange, new_id())])
    assert {one.line.principal.chat for one in recorded} == {"chat\ufffd"}


UNSTORABLE: list[dict[str, Any]] = [{"attempt": 2**31}, {"response_id": token_hex(9_000)}]


@pytest.mark.parametrize("fields", UNSTORABLE)
async def test_a_line_that_cannot_be_stored_is_refused_and_nothing_is_added(
    ledger: LedgerStore, owner: Principal, fields: dict[str, Any]
) -> None:
    fine = charge(owner, new_id())
    with pytest.raises(LedgerRefusedError):
        await ledger.record([fine, charge(owner, **{"response_id": new_id(), **fields})])
    assert await quantities(ledger, fine.response_id) == {}


async def test_the_database_itself_refuses_a_line_that_is_neither_priced_nor_explained(
    ledger: LedgerStore, owner: Principal
) -> None:
    [line, _] = charge(owner, new_id()).lines
    silent = line.model_copy(update={"cost_usd": None})
    with pytest.raises(LedgerRefusedError, match="ledger_priced_or_why_not_check"):
        await ledger.record([Charge(line.response_id, 1, (silent,))])


async def test_a_batch_of_thousands_of_lines_is_one_statement(
    ledger: LedgerStore, engine: AsyncEngine, owner: Principal
) -> None:
    charges = [charge(owner, new_id(), usage(1000, 10, cached=5)) for _ in range(2000)]
    assert len(await ledger.record(charges)) == 6000
    total = (await ledger.report(ReportQuery(group_by=("model",), project=owner.project))).total
    # Per response: 995 at $0.15, 5 at $0.075 and 10 at $0.60 per million tokens.
    assert total.cost_usd == 2000 * Decimal("0.000155625")


class Silence:
    """Tells nobody, and has no payloads."""

    async def announce(self, recorded: Sequence[Recorded], traces: Mapping[str, str]) -> None:
        """Do nothing."""

    async def fetch(self, claim: ClaimCheck) -> bytes:
        raise AssertionError(f"nobody stored {claim.key}")


def facts_of(owner: Principal, tokens: list[int]) -> list[Envelope]:
    facts = []
    for count in tokens:
        response_id = new_id()
        used = response(usage=usage(count, count // 3, cached=count // 2))
        fact = finished(response_id=response_id, principal=owner, response=used)
        call = tool_result(response_id=response_id, principal=owner)
        facts += [envelope(one, response_id=response_id) for one in (fact, call)]
    return facts


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.lists(st.integers(0, 100_000), min_size=1, max_size=5))
async def test_any_order_repetition_and_batching_gives_the_same_sums(
    ledger: LedgerStore, data: st.DataObject, tokens: list[int]
) -> None:
    owner = Principal(project=f"proj_{uuid4().hex}", key_id="key_a")
    facts = facts_of(owner, tokens)
    repeats = data.draw(st.lists(st.sampled_from(facts), max_size=6))
    order = data.draw(st.permutations([*facts, *repeats]))
    size = data.draw(st.integers(1, len(order)))
    books = Bookkeeper(book=BOOK, ledger=ledger, payloads=Silence(), announcer=Silence())
    for at in range(0, len(order), size):
        await books.record(order[at : at + size])
    report = await ledger.report(ReportQuery(group_by=("model",), project=owner.project))
    plain = sum(count - count // 2 for count in tokens)
    cached = sum(count // 2 for count in tokens)
    out = sum(count // 3 for count in tokens)
    expected = (plain * Decimal("0.15") + cached * Decimal("0.075") + out * Decimal("0.6")) / 10**6
    assert (report.total.cost_usd or Decimal(0)) == expected
    assert report.total.quantities["tool_calls"] == report.total.unpriced_lines == len(tokens)


async def test_lines_come_in_pages(ledger: LedgerStore, owner: Principal) -> None:
    response_id = new_id()
    calls = [
        charge_tool_result(
            tool_result(response_id=response_id, principal=owner, call_id=f"call_{number}"),
            FINISHED,
            BOOK,
        )
        for number in range(5)
    ]
    await ledger.record(calls)
    seen: list[str] = []
    for expected in (2, 2, 1):
        after = seen[-1] if seen else None
        page = await ledger.lines(
            LinesQuery(response_id=response_id, project=owner.project, after=after, limit=2)
        )
        assert len(page.lines) == expected
        assert page.has_more == (expected == 2)
        seen += [line.line_id for line in page.lines]
    assert seen == [f"{response_id}:call_{number}" for number in range(5)]


async def test_lines_of_another_project_are_not_shown(
    ledger: LedgerStore, owner: Principal
) -> None:
    response_id = new_id()
    await ledger.record([charge(owner, response_id)])
    page = await ledger.lines(LinesQuery(response_id=response_id, project="proj_other"))
    assert page.lines == ()


async def test_reports_find_their_lines_by_an_index(engine: AsyncEngine) -> None:
    questions = {
        "response_id = 'resp_1' ORDER BY line_id": "ledger_response_id_idx",
        "project = 'a' AND occurred_at >= now()": "ledger_project_idx",
        "key_id = 'a' AND occurred_at >= now()": "ledger_key_id_idx",
        "occurred_at >= now()": "ledger_occurred_at_idx",
    }
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        for condition, index in questions.items():
            plan = await connection.execute(
                text(f"EXPLAIN SELECT * FROM costs.ledger WHERE {condition}")
            )
            assert any(index in str(line) for line in plan.scalars())
