"""What every area of intake is given: settings, clock, and the connections to the outside."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.providers import Providers
from services.intake.clients import HttpClients
from services.intake.settings import IntakeSettings
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import BlobStore
from services.kit.clock import Clock, SystemClock
from services.kit.database import create_engine
from services.kit.deadletters import DeadLetters
from services.kit.producer import Producer


@dataclass(frozen=True, slots=True)
class Shared:
    """`producer` and `clients` are parts that start and stop."""

    settings: IntakeSettings
    clock: Clock
    providers: Providers
    engine: AsyncEngine
    blobs: BlobStore
    producer: Producer
    dead_letters: DeadLetters
    clients: HttpClients


def wire_shared(settings: IntakeSettings) -> Shared:
    """Make the connections; each opens when it is first used or started."""
    # What could not be sent by then is not sent later either: its client was told 503, and comes
    # again with work that would be paid for twice.
    patience_ms = int(settings.accept_timeout_seconds * 1000)
    producer = Producer(
        settings.kafka_bootstrap, client_id="intake", request_timeout_ms=patience_ms
    )
    return Shared(
        settings=settings,
        clock=SystemClock(),
        providers=settings.providers(),
        engine=create_engine(
            settings.database_url, pool_size=settings.database_pool, name="intake"
        ),
        blobs=open_blobs(settings),
        producer=producer,
        dead_letters=DeadLetters(producer, service="intake"),
        clients=HttpClients(),
    )
