"""The Kafka edge: batches of facts to the use case that charges them."""

from __future__ import annotations

from opentelemetry import metrics

from contracts.responses import ResponseFinishedV1
from contracts.tools import ToolResultV1
from contracts.topics import RESPONSES_LIFECYCLE, TOOLS_RESULTS
from services.costs.errors import LedgerRefusedError
from services.costs.service import Bookkeeper
from services.kit.batches import Handler, Received, Subscription
from services.kit.deadletters import RefusalError
from services.kit.health import ProgressWatch

_PACE_SECONDS = 0.1


def billable_facts(handle: Handler, *, group: str, batch: int) -> Subscription:
    """Return the subscription to everything that costs something; up to `batch` at a time."""
    return Subscription(
        topics=(RESPONSES_LIFECYCLE.name, TOOLS_RESULTS.name),
        group=group,
        types=frozenset({ResponseFinishedV1.TYPE, ToolResultV1.TYPE}),
        handle=handle,
        max_records=batch,
        pace_seconds=_PACE_SECONDS,
    )


def on_billable(bookkeeper: Bookkeeper, watch: ProgressWatch) -> Handler:
    """Return the handler: idempotent; raises `RefusalError` for what the ledger can't hold."""
    lines = metrics.get_meter("antiphon").create_counter(
        "antiphon.costs.lines", description="Ledger lines told to others, repeats included"
    )

    async def handle(batch: list[Received]) -> None:
        try:
            recorded = await bookkeeper.record([received.envelope for received in batch])
        except LedgerRefusedError as error:
            raise RefusalError(str(error)) from error
        watch.handled(len(batch))
        unpriced = sum(one.line.cost_usd is None for one in recorded)
        lines.add(unpriced, {"priced": False})
        lines.add(len(recorded) - unpriced, {"priced": True})

    return handle
