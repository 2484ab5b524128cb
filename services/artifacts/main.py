"""The composition root of the artifacts service: the only place that wires its parts."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from contracts.topics import RESPONSES_LIFECYCLE
from services.artifacts.api import ERRORS, Api
from services.artifacts.clients import KafkaAnnouncer
from services.artifacts.files.api import ERRORS as FILE_ERRORS
from services.artifacts.files.api import FilesApi
from services.artifacts.files.service import Files
from services.artifacts.files.store import PostgresFileRecords
from services.artifacts.files.sweeper import FileSweeper
from services.artifacts.service import Keeper, Library
from services.artifacts.settings import ArtifactsSettings
from services.artifacts.store import PostgresRecords
from services.artifacts.subscribers import TYPES, LifecycleSubscriber
from services.kit.batches import Subscription
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import BlobStore
from services.kit.claimcheck import ClaimSweeper
from services.kit.clock import SystemClock
from services.kit.consumer import Consumers
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.producer import Producer
from services.kit.retry import Backoff, retry
from services.kit.runtime import Runtime, run_service

SERVICE = "artifacts"
_PACE_SECONDS = 0.1
_AT_THE_START = Backoff(attempts=10, within_seconds=60.0)


class _Storage:
    """The blob store made ready before anything uses it, the database let go of at the end."""

    def __init__(self, blobs: BlobStore, engine: AsyncEngine) -> None:
        self._blobs = blobs
        self._engine = engine

    async def start(self) -> None:
        await retry(self._blobs.check, on=(OSError,), backoff=_AT_THE_START)

    async def stop(self) -> None:
        await self._engine.dispose()


async def compose(settings: ArtifactsSettings, runtime: Runtime) -> None:
    """Build the service and add its parts to the runtime."""
    clock = SystemClock()
    blobs = open_blobs(settings)
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name=SERVICE)
    producer = Producer(settings.kafka_bootstrap, client_id=SERVICE)
    records = PostgresRecords(engine)
    keeper = Keeper(
        records,
        blobs,
        KafkaAnnouncer(producer, clock),
        remember_deleted=timedelta(days=settings.remember_deleted_days),
    )
    consumers = Consumers(
        settings.kafka_bootstrap,
        service=SERVICE,
        dead_letters=DeadLetters(producer, service=SERVICE),
        on_fatal=runtime.fail,
    )
    watch = ProgressWatch(consumers, clock, seconds=settings.stall_seconds)
    subscriber = LifecycleSubscriber(
        keeper,
        blobs,
        limits=settings.limits,
        max_response_bytes=settings.max_response_bytes,
        handled=watch.handled,
    )
    consumers.subscribe(
        Subscription(
            topics=(RESPONSES_LIFECYCLE.name,),
            group=SERVICE,
            handle=subscriber.on_lifecycle,
            types=TYPES,
            max_records=settings.batch_records,
            pace_seconds=_PACE_SECONDS,
        )
    )
    health = _health(engine, blobs, consumers, watch)
    files = Files(PostgresFileRecords(engine), blobs, clock, limits=settings.upload_limits)
    server = _server(settings, Library(records, blobs), files, health)
    claims = ClaimSweeper(blobs, clock, keep=timedelta(days=settings.keep_claims_days))
    sweeper = FileSweeper(files, every_seconds=settings.sweep_files_seconds)
    for part in (_Storage(blobs, engine), producer, consumers, claims, sweeper, server):
        runtime.add(part)


def _server(
    settings: ArtifactsSettings, library: Library, files: Files, health: Health
) -> HttpServer:
    token = settings.antiphon_internal_token.get_secret_value()
    api = Api(library, token=token)
    files_api = FilesApi(files, token=token, idle_seconds=settings.upload_idle_seconds)
    app = Starlette(
        routes=[
            *health_routes(health),
            *api.routes(),
            *files_api.routes(),
            *files_api.internal_routes(),
        ],
        exception_handlers={**ERRORS, **FILE_ERRORS},
    )
    return HttpServer(
        app, host=settings.host, port=settings.port, drain_seconds=settings.shutdown_seconds / 2
    )


def _health(
    engine: AsyncEngine, blobs: BlobStore, consumers: Consumers, watch: ProgressWatch
) -> Health:
    async def database() -> bool:
        return await ping(engine)

    async def blob_store() -> bool:
        await blobs.check()
        return True

    async def joined() -> bool:
        return consumers.lag() is not None

    return Health(
        readiness={"database": database, "blob_store": blob_store, "kafka": joined},
        liveness={"progress": watch.moving},
    )


def main() -> None:
    """Run the service until it is told to end."""
    run_service(SERVICE, ArtifactsSettings, compose)


if __name__ == "__main__":
    main()
