"""What intake learns from its topics, and how one sees that it still does."""

from __future__ import annotations

from functools import partial

from contracts.responses import (
    ResponseDeletedV1,
    ResponseFinishedV1,
    ResponseStartedV1,
    RunResponseV1,
)
from contracts.topics import RESPONSES_COMMANDS, RESPONSES_LIFECYCLE
from services.intake.subscribers import Projection
from services.intake.wiring.admission import Admission
from services.intake.wiring.history import History
from services.intake.wiring.shared import Shared
from services.intake.wiring.streams import Streams
from services.kit.batches import Subscription
from services.kit.consumer import Consumers
from services.kit.database import ping
from services.kit.health import Health, Probe, ProgressWatch, Reader
from services.kit.runtime import Runtime

_LIVENESS_SECONDS = 60.0
_PACE_SECONDS = 0.05
_PROJECTED = frozenset(
    contract.TYPE
    for contract in (RunResponseV1, ResponseStartedV1, ResponseFinishedV1, ResponseDeletedV1)
)


def wire_projection(
    shared: Shared, admission: Admission, history: History, runtime: Runtime
) -> Consumers:
    """Wire what keeps the stores up to date with the log."""
    consumers = Consumers(
        shared.settings.kafka_bootstrap,
        service="intake",
        dead_letters=shared.dead_letters,
        on_fatal=runtime.fail,
    )
    projection = Projection(
        history.store, history.turn_store, shared.blobs, shared.clock, admission.settler
    )
    projection.on_step = consumers.note_activity
    consumers.subscribe(
        Subscription(
            topics=(RESPONSES_COMMANDS.name, RESPONSES_LIFECYCLE.name),
            group="intake",
            types=_PROJECTED,
            handle=projection.on_messages,
            pace_seconds=_PACE_SECONDS,
        )
    )
    return consumers


def wire_health(
    shared: Shared, admission: Admission, streams: Streams, consumers: Consumers
) -> Health:
    """Wire the probes: ready with its database and keys, alive while messages move."""

    def moving(reader: Reader) -> Probe:
        return ProgressWatch(reader, shared.clock, seconds=_LIVENESS_SECONDS).moving

    async def keys_known() -> bool:
        return admission.key_tail.caught_up.is_set()

    return Health(
        readiness={"database": partial(ping, shared.engine), "keys": keys_known},
        liveness={
            "projection": moving(consumers),
            "events": moving(streams.hubs.own.tail),
            "config": moving(admission.key_tail),
        },
    )
