"""Where the events of responses come in: the partition of this replica and its followers."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.topics import RESPONSES_EVENTS
from services.intake.settings import IntakeSettings
from services.intake.streaming.hubs import Hubs
from services.intake.streaming.log_reads import LogReads
from services.intake.streaming.partition_seat import PartitionSeat
from services.intake.streaming.resume import Resumer
from services.intake.wiring.shared import Shared
from services.kit.database import create_engine

# Far longer than the log takes to tell a stream to a client that reads.
_HOLD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Streams:
    """`hubs` is a part that starts and stops, as is `seat` when this replica had to find one."""

    seat: PartitionSeat | None
    hubs: Hubs
    resumer: Resumer


async def wire_streams(shared: Shared) -> Streams:
    """Take a partition, which needs the database, and wire what reads it."""
    settings = shared.settings
    seat = _seat(settings)
    hubs = Hubs(
        settings.kafka_bootstrap,
        own_partition=await seat.take() if seat else settings.preferred_partition(),
        dead_letters=shared.dead_letters,
        heartbeat_seconds=settings.heartbeat_seconds,
        buffered_bytes=settings.max_buffered_bytes,
    )
    resumer = Resumer(
        hubs,
        shared.blobs,
        LogReads(
            most=settings.max_log_reads,
            most_waiting=settings.max_open_requests,
            wait_seconds=settings.accept_timeout_seconds,
            hold_seconds=_HOLD_SECONDS,
        ),
        bootstrap=settings.kafka_bootstrap,
        buffer_bytes=settings.max_stream_buffer_bytes,
    )
    return Streams(seat, hubs, resumer)


def _seat(settings: IntakeSettings) -> PartitionSeat | None:
    """Return what finds this replica a partition of its own; None when it was given one."""
    if settings.events_partition is not None:
        return None
    return PartitionSeat(
        create_engine(settings.database_url, pool_size=1, name="intake-seat"),
        partitions=RESPONSES_EVENTS.partitions,
        preferred=settings.preferred_partition(),
    )
