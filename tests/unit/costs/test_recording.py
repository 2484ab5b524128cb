"""Facts become the same ledger in whatever order, batches and number they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.event import Envelope
from contracts.responses import ClaimCheck, ResponseStartedV1
from services.costs.domain.charges import Charge
from services.costs.errors import PayloadLostError
from services.costs.service import Bookkeeper, Recorded
from tests.unit.costs.facts import (
    BOOK,
    FINISHED,
    OWNER,
    envelope,
    finished,
    response,
    tool_result,
    usage,
)

CLAIM = ClaimCheck(key="claims/resp_1", size_bytes=600_000, sha256="0" * 64)


class MemoryLedger:
    """Keeps lines in a dict, by the rules that `Ledger` states."""

    def __init__(self) -> None:
        self.lines: dict[str, Recorded] = {}
        self._attempts: dict[str, int] = {}
        self._now = FINISHED

    async def record(self, charges: Sequence[Charge]) -> list[Recorded]:
        self._now += timedelta(seconds=1)
        for charge in charges:
            attempt = charge.attempt
            first = attempt and self._attempts.setdefault(charge.response_id, attempt)
            if attempt != first:
                continue
            for line in charge.lines:
                self.lines.setdefault(line.line_id, Recorded(line, self._now))
        ids = {line.line_id for charge in charges for line in charge.lines}
        return [self.lines[line_id] for line_id in sorted(ids & self.lines.keys())]


class Told:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []
        self.traces: dict[str, str] = {}

    async def announce(self, recorded: Sequence[Recorded], traces: Mapping[str, str]) -> None:
        self.recorded.extend(recorded)
        self.traces.update(traces)


class Shelf:
    """Payloads by key."""

    def __init__(self, payloads: dict[str, bytes]) -> None:
        self._payloads = payloads

    async def fetch(self, claim: ClaimCheck) -> bytes:
        try:
            return self._payloads[claim.key]
        except KeyError as error:
            raise PayloadLostError("its payload is gone") from error


def bookkeeper(
    ledger: MemoryLedger, told: Told | None = None, payloads: dict[str, bytes] | None = None
) -> Bookkeeper:
    return Bookkeeper(
        book=BOOK, ledger=ledger, payloads=Shelf(payloads or {}), announcer=told or Told()
    )


async def test_what_is_told_is_what_the_ledger_has() -> None:
    ledger, told = MemoryLedger(), Told()
    fact = envelope(finished(), response_id="resp_1")
    traced = fact.model_copy(update={"traceparent": "00-aa-bb-01"})
    recorded = await bookkeeper(ledger, told).record([traced])
    assert recorded == told.recorded == list(ledger.lines.values())
    assert told.traces == {"resp_1": "00-aa-bb-01"}


async def test_a_batch_that_comes_again_tells_the_same_facts_again() -> None:
    ledger, told = MemoryLedger(), Told()
    facts = [
        envelope(finished(), response_id="resp_1"),
        envelope(tool_result(), response_id="resp_1"),
    ]
    books = bookkeeper(ledger, told)
    first = await books.record(facts)
    assert await books.record(facts) == first
    assert told.recorded == [*first, *first]
    assert len(ledger.lines) == 3


async def test_facts_that_cost_nothing_touch_nothing() -> None:
    ledger, told = MemoryLedger(), Told()
    started = ResponseStartedV1(response_id="resp_1", attempt=1, principal=OWNER)
    failed = finished(status="failed", response=response(usage=None))
    facts = [envelope(fact, response_id="resp_1") for fact in (started, failed)]
    assert await bookkeeper(ledger, told).record(facts) == []
    assert (ledger.lines, told.recorded) == ({}, [])


@pytest.mark.parametrize("together", [True, False])
async def test_a_second_attempt_never_adds_to_the_first(together: bool) -> None:
    ledger = MemoryLedger()
    first = finished(attempt=1, response=response(usage=usage(100, 0)))
    second = finished(attempt=2, response=response(usage=usage(100, 50, cached=80)))
    facts = [envelope(fact, response_id="resp_1") for fact in (first, second)]
    books = bookkeeper(ledger)
    for batch in [facts] if together else [facts[:1], facts[1:]]:
        await books.record(batch)
    assert {line_id: one.line.quantity for line_id, one in ledger.lines.items()} == {
        "resp_1:input_tokens": 100
    }


async def test_a_large_response_is_read_by_its_claim_check() -> None:
    ledger = MemoryLedger()
    fact = envelope(finished(response=None, payload=CLAIM), response_id="resp_1")
    payloads = {CLAIM.key: b'{"usage": {"input_tokens": 1000, "output_tokens": 0}}'}
    [recorded] = await bookkeeper(ledger, payloads=payloads).record([fact])
    assert recorded.line.cost_usd == Decimal("0.00015")


@pytest.mark.parametrize("payload", [None, b"{", b"[]", b"[" * 100_000])
async def test_a_large_response_that_cannot_be_read_leaves_an_unpriced_line(
    payload: bytes | None,
) -> None:
    fact = envelope(finished(response=None, payload=CLAIM), response_id="resp_1")
    payloads = {} if payload is None else {CLAIM.key: payload}
    [recorded] = await bookkeeper(MemoryLedger(), payloads=payloads).record([fact])
    assert recorded.line.cost_usd is None
    assert str(recorded.line.unpriced_reason).startswith("the response can't be read: ")


MODELS = st.sampled_from(["gpt-4o-mini", "gpt-5", "smollm2-135m"])


@st.composite
def histories(draw: st.DrawFn) -> list[Envelope]:
    """Draw facts about a few responses, each with its tool calls."""
    facts: list[Envelope] = []
    for number in range(draw(st.integers(1, 5))):
        response_id = f"resp_{number}"
        into, out = draw(st.integers(0, 10_000)), draw(st.integers(0, 10_000))
        used = usage(into, out, cached=draw(st.integers(0, into)))
        fact = finished(response_id=response_id, model=draw(MODELS), response=response(usage=used))
        facts.append(envelope(fact, response_id=response_id))
        for call in range(draw(st.integers(0, 3))):
            result = tool_result(response_id=response_id, call_id=f"call_{number}_{call}")
            facts.append(envelope(result, response_id=response_id))
    return facts


@st.composite
def deliveries(draw: st.DrawFn, facts: list[Envelope]) -> list[list[Envelope]]:
    """Draw a way in which Kafka may hand the facts over: reordered, repeated, in any batches."""
    repeated = draw(st.lists(st.sampled_from(facts), max_size=len(facts)))
    order = draw(st.permutations([*facts, *repeated]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=5)))
    return [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True) if a < b]


@given(st.data())
async def test_any_delivery_gives_the_same_ledger_and_the_same_sum(data: st.DataObject) -> None:
    facts = data.draw(histories())
    expected, found, told = MemoryLedger(), MemoryLedger(), Told()
    for fact in facts:
        await bookkeeper(expected).record([fact])
    books = bookkeeper(found, told)
    for batch in data.draw(deliveries(facts)):
        await books.record(batch)
    assert lines(found) == lines(expected)
    assert total(found) == total(expected)
    assert {one.line.line_id for one in told.recorded} == set(found.lines)


def lines(ledger: MemoryLedger) -> dict[str, object]:
    return {line_id: recorded.line for line_id, recorded in ledger.lines.items()}


def total(ledger: MemoryLedger) -> Decimal:
    return sum((one.line.cost_usd or Decimal(0) for one in ledger.lines.values()), Decimal(0))
