"""The Kafka edge: facts about responses that ended become deliveries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from opentelemetry import metrics

from contracts.responses import ResponseFinishedV1
from services.kit.batches import Received
from services.kit.clock import Clock
from services.kit.deadletters import Record
from services.webhooks.domain.events import Event, type_of
from services.webhooks.service import Inbox

TYPES = frozenset({ResponseFinishedV1.TYPE})
# True as well for a fact whose response says so: a text in it would have its quotes escaped.
_BACKGROUND = re.compile(rb'"background"\s*:\s*true')


class LifecycleSubscriber:
    """Handles `responses.lifecycle`; `handled` is told how many messages are done.

    `notify` is called when there are new deliveries.
    """

    def __init__(
        self,
        inbox: Inbox,
        clock: Clock,
        *,
        handled: Callable[[int], None],
        notify: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._clock = clock
        self._handled = handled
        self._notify = notify
        self._queued = metrics.get_meter("antiphon").create_counter(
            "antiphon.webhooks.queued", description="New deliveries of webhooks"
        )

    async def preselect(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return those that may concern anybody, by a look at their bytes.

        Nearly all facts are about responses that somebody waited for, and large: without this each
        would be parsed to be thrown away.
        """
        interest = await self._inbox.interest()
        if interest.foreground:
            return records
        if not interest.any:
            return ()
        return [record for record in records if _BACKGROUND.search(record.value or b"")]

    async def on_lifecycle(self, batch: list[Received]) -> None:
        """Make deliveries of the facts, all in one transaction; idempotent."""
        events = [
            _event(received.envelope.data)
            for received in batch
            if isinstance(received.envelope.data, ResponseFinishedV1)
        ]
        if events and (new := await self._inbox.accept(events, at=self._clock.now())):
            self._queued.add(new)
            self._notify()
        self._handled(len(batch))


def _event(fact: ResponseFinishedV1) -> Event:
    return Event(
        type=type_of(fact.status),
        response_id=fact.response_id,
        project=fact.principal.project,
        background=fact.background,
        occurred_at=fact.finished_at,
    )
