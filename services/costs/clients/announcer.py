"""Ledger lines as facts on `costs.recorded`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from contracts.topics import COSTS_RECORDED
from services.costs.service import Recorded
from services.kit.codec import Stamp, encode
from services.kit.producer import Producer


class KafkaAnnouncer:
    """Sends one `CostRecordedV1` per line; its id is the line's, so a repeat can be told."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def announce(self, recorded: Sequence[Recorded], traces: Mapping[str, str]) -> None:
        """Return once all are acknowledged; raises `KafkaError` when one is not."""
        acknowledgements = [
            await self._producer.enqueue(
                COSTS_RECORDED.name, _message(one, traces), key=one.line.response_id
            )
            for one in recorded
        ]
        await asyncio.gather(*acknowledgements)


def _message(recorded: Recorded, traces: Mapping[str, str]) -> bytes:
    line = recorded.line
    stamp = Stamp(
        event_id=line.line_id,
        source="/costs",
        subject=line.response_id,
        time=recorded.recorded_at,
        traceparent=traces.get(line.response_id),
    )
    return encode(line, stamp)
