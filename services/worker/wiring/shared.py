"""What every area of the worker is given: settings, clock, metrics, connections to the outside."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import BlobStore
from services.kit.clock import Clock, SystemClock
from services.kit.database import create_engine
from services.kit.deadletters import DeadLetters
from services.kit.producer import Producer
from services.kit.runtime import Runtime
from services.worker.metrics import WorkerMetrics
from services.worker.settings import WorkerSettings
from services.worker.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Shared:
    """`producer` is a part that starts and stops."""

    settings: WorkerSettings
    runtime: Runtime
    clock: Clock
    metrics: WorkerMetrics
    tracing: Tracing
    engine: AsyncEngine
    blobs: BlobStore
    producer: Producer
    dead_letters: DeadLetters


def wire_shared(settings: WorkerSettings, runtime: Runtime) -> Shared:
    """Make the connections; each opens when it is first used or started."""
    producer = Producer(settings.kafka_bootstrap, client_id=settings.name)
    return Shared(
        settings=settings,
        runtime=runtime,
        clock=SystemClock(),
        metrics=WorkerMetrics(),
        tracing=Tracing(enabled=bool(settings.otel_exporter_otlp_endpoint)),
        engine=create_engine(
            settings.database_url, pool_size=settings.database_pool, name="worker"
        ),
        blobs=open_blobs(settings),
        producer=producer,
        dead_letters=DeadLetters(producer, service="worker"),
    )
