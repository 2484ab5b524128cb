"""What the ends of responses mean for the limits of their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from contracts.responses import ResponseFinishedV1
from services.intake.admission.limiter import LimitStore, Settlement
from services.intake.admission.limits import Limits


class Settler:
    """Replaces estimates by what responses used; only keys with a limit of tokens have any."""

    def __init__(self, limits_of: Callable[[str], Limits | None], store: LimitStore) -> None:
        self._limits_of = limits_of
        self._store = store

    def limits_of(self, fact: ResponseFinishedV1) -> Limits | None:
        """Return the limits of the key that a response was for, None when nothing is reserved."""
        limits = self._limits_of(fact.principal.key_id)
        return None if limits is None or limits.tokens_per_minute is None else limits

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle a batch in one statement. Idempotent: the first one counts."""
        await self._store.settle(settlements)


def settlement(fact: ResponseFinishedV1, response: dict[str, Any], limits: Limits) -> Settlement:
    """Return what a response used; one that failed uncounted used nothing.

    Of another that nobody counted, such as a cancelled one, the estimate stays: else cancelling
    would make tokens free.
    """
    usage = response.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    if not isinstance(total, int):
        total = 0 if fact.status == "failed" else None
    return Settlement(fact.response_id, fact.principal.key_id, limits, total)
