"""The use cases: write charges to the ledger and tell others, and report what was spent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from contracts.costs import CostRecordedV1
from contracts.event import Envelope
from contracts.responses import ClaimCheck, ResponseFinishedV1
from contracts.tools import ToolResultV1
from services.costs.domain.charges import (
    Charge,
    charge_response,
    charge_tool_result,
    charge_unreadable,
)
from services.costs.domain.prices import LayeredBook
from services.costs.domain.reports import LinesPage, LinesQuery, Report, ReportQuery
from services.costs.errors import PayloadLostError


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line as it stands in the ledger, and since when."""

    line: CostRecordedV1
    recorded_at: datetime


class Ledger(Protocol):
    """Where lines are kept; a line never changes once it is there."""

    async def record(self, charges: Sequence[Charge]) -> list[Recorded]:
        """Add the lines that are new, all or none; return what the ledger has under their ids.

        Of several attempts of one response, the first that is recorded counts: lines of others are
        not added. Raises `LedgerRefusedError` for lines that can't be stored.
        """
        ...


class Reports(Protocol):
    """What can be asked of the ledger."""

    async def report(self, query: ReportQuery) -> Report:
        """Sum up lines."""
        ...

    async def lines(self, query: LinesQuery) -> LinesPage:
        """Return lines of one response."""
        ...


class Payloads(Protocol):
    """What claim checks stand for."""

    async def fetch(self, claim: ClaimCheck) -> bytes:
        """Return the payload; raises `PayloadLostError`, or `OSError` when it may come later."""
        ...


class Announcer(Protocol):
    """Tells other services about ledger lines."""

    async def announce(self, recorded: Sequence[Recorded], traces: Mapping[str, str]) -> None:
        """Return once all are durable; `traces` are `traceparent`s by response id."""
        ...


class Bookkeeper:
    """Turns facts into ledger lines, once, however often and in whatever batches they come."""

    def __init__(
        self, *, book: LayeredBook, ledger: Ledger, payloads: Payloads, announcer: Announcer
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._payloads = payloads
        self._announcer = announcer

    async def record(self, facts: Sequence[Envelope]) -> list[Recorded]:
        """Charge `ResponseFinishedV1` and `ToolResultV1`; others are passed over.

        Idempotent. The ledger is written first and facts are told from it, so a batch that comes
        again tells the same facts with the same ids, also when prices have changed since.
        """
        charges = [charge for fact in facts if (charge := await self._charge(fact)).lines]
        if not charges:
            return []
        recorded = await self._ledger.record(_first_attempts(charges))
        traces = {fact.subject: fact.traceparent for fact in facts if fact.traceparent}
        await self._announcer.announce(recorded, traces)
        return recorded

    async def _charge(self, fact: Envelope) -> Charge:
        match fact.data:
            case ResponseFinishedV1() as finished:
                return await self._charge_response(finished)
            case ToolResultV1() as result:
                return charge_tool_result(result, fact.time, self._book)
            case _:
                return Charge(fact.subject, None, ())

    async def _charge_response(self, fact: ResponseFinishedV1) -> Charge:
        response: Any = fact.response or {}
        if fact.payload is not None:
            try:
                response = json.loads(await self._payloads.fetch(fact.payload))
            except (PayloadLostError, ValueError, RecursionError) as error:
                return charge_unreadable(fact, f"the response can't be read: {error}"[:200])
            if not isinstance(response, dict):
                return charge_unreadable(fact, "the response can't be read: it is no object")
        return charge_response(fact, response, self._book)


def _first_attempts(charges: Sequence[Charge]) -> list[Charge]:
    first: dict[str, int] = {}
    return [
        charge
        for charge in charges
        if charge.attempt is None
        or first.setdefault(charge.response_id, charge.attempt) == charge.attempt
    ]
