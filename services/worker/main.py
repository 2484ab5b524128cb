"""The worker's composition root."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial

from starlette.applications import Starlette

from contracts.providers import ProviderConfig
from contracts.responses import RunResponseV1
from contracts.topics import RESPONSES_COMMANDS, TOOLS_RESULTS
from services.kit.blobs import open_blobs
from services.kit.clock import SystemClock
from services.kit.consumer import Consumers, Subscription
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.kit.runtime import Part, Runtime, run_service
from services.kit.seal import Sealer
from services.kit.settings import secret_variable
from services.worker.clients import KafkaFacts, ProviderConnection, WorkerTools
from services.worker.leases.keeper import LeaseKeeper, Sweeper
from services.worker.leases.store import LeaseStore
from services.worker.leases.sweeps import Republisher
from services.worker.metrics import WorkerMetrics
from services.worker.operations.answers import Answers, Vendor
from services.worker.operations.runner import TYPES as OPERATIONS
from services.worker.operations.runner import OperationRunner
from services.worker.outbox import Outbox
from services.worker.providers.client import UpstreamClient
from services.worker.providers.guard import Guard
from services.worker.providers.turns import ChatTurns, ResponsesTurns
from services.worker.providers.vendor import VendorClient
from services.worker.queue.dispatcher import Dispatcher
from services.worker.queue.reader import CommandReader
from services.worker.queue.rules import QueueBounds
from services.worker.queue.store import QueueStore
from services.worker.runs.attempts import Attempts, Limits
from services.worker.runs.recovery import delivered
from services.worker.seals import ItemSeals
from services.worker.service import ResponseRunner
from services.worker.settings import WorkerSettings
from services.worker.subscribers import Bounds, CommandIntake, Control
from services.worker.tools.mcp import McpCaller, McpCatalog
from services.worker.tracing import Tracing

_LIVENESS_SECONDS = 60.0
_CLAIMS_AT_ONCE = 4


def connect(
    config: ProviderConfig, settings: WorkerSettings, metrics: WorkerMetrics
) -> ProviderConnection:
    """Return the client and turns of one provider; its key comes from the named variable."""
    api_key = secret_variable(config.api_key_env) if config.api_key_env else ""
    client = UpstreamClient(
        config, api_key=api_key, max_response_bytes=settings.max_response_bytes, metrics=metrics
    )
    turns = (
        ResponsesTurns(client, max_event_bytes=settings.max_event_bytes)
        if config.dialect == "responses"
        else ChatTurns(client, max_event_bytes=settings.max_event_bytes, new_id=new_id)
    )
    return ProviderConnection(config, client, turns)


def watch_worker(metrics: WorkerMetrics, commands: CommandIntake, dispatcher: Dispatcher) -> None:
    """Show how much runs and waits."""
    metrics.watch("open_responses", "Responses that run here", lambda: commands.open_responses)
    metrics.watch(
        "background_running", "Background responses that run here", lambda: dispatcher.running
    )
    metrics.watch(
        "queued", "Background responses that wait, at all workers", lambda: dispatcher.waiting
    )


def watch_providers(metrics: WorkerMetrics, guards: Sequence[Guard]) -> None:
    """Show the breaker and the open calls of each provider."""
    metrics.watch_each(
        "provider_state",
        "Breaker of a provider: 0 closed, 1 half open, 2 open",
        {guard.name: guard.breaker_state for guard in guards},
        label="provider",
    )
    metrics.watch_each(
        "provider_calls",
        "Calls of a provider that are under way",
        {guard.name: guard.calls_under_way for guard in guards},
        label="provider",
    )


def vendor(config: ProviderConfig, settings: WorkerSettings) -> VendorClient:
    """Return the official client of a provider, for its calls off the hot path."""
    api_key = secret_variable(config.api_key_env) if config.api_key_env else ""
    return VendorClient(config, api_key=api_key, max_response_bytes=settings.max_response_bytes)


async def compose(settings: WorkerSettings, runtime: Runtime) -> None:
    """Wire the worker."""
    clock = SystemClock()
    name = settings.name
    providers = settings.providers()
    metrics = WorkerMetrics()
    tracing = Tracing(enabled=bool(settings.otel_exporter_otlp_endpoint))
    connections = {p.name: connect(p, settings, metrics) for p in providers.providers}
    vendors = {p.name: vendor(p, settings) for p in providers.providers if p.dialect == "responses"}
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name="worker")
    blobs = open_blobs(settings)
    producer = Producer(settings.kafka_bootstrap, client_id=name)
    dead_letters = DeadLetters(producer, service="worker")
    outbox = Outbox(
        producer,
        blobs,
        tick_seconds=settings.tick_ms / 1000,
        bound_bytes=settings.pending_bytes,
        on_fatal=runtime.fail,
    )
    store = LeaseStore(engine, owner=name, seconds=settings.lease_seconds)
    catalog = McpCatalog(settings.kafka_bootstrap, dead_letters=dead_letters)
    partition = settings.results_partition
    caller = McpCaller(
        producer,
        clock,
        partition=zlib.crc32(name.encode()) % TOOLS_RESULTS.partitions
        if partition is None
        else partition,
        timeout_seconds=settings.tool_timeout_seconds,
    )
    seals = ItemSeals(Sealer(settings.antiphon_seal_secret.get_secret_value().split(",")))
    attempts = Attempts(
        upstreams=lambda model: [connections[p.name] for p in providers.serving(model)],
        tools=WorkerTools(catalog, caller),
        clock=clock,
        new_id=new_id,
        limits=Limits(max_turns=settings.max_turns, max_event_bytes=settings.max_event_bytes),
        seals=seals,
        metrics=metrics,
    )
    runner = ResponseRunner(
        attempts=attempts,
        facts=KafkaFacts(producer, blobs, clock),
        clock=clock,
        read_back=lambda job: delivered(
            settings.kafka_bootstrap,
            blobs,
            response_id=job.response_id,
            partition=job.command.events_partition,
        ),
        tracing=tracing,
    )
    for connection in connections.values():
        connection.client.guard.tracing = tracing
    operations = OperationRunner(
        responses=runner,
        answers=Answers(dict[str, Vendor](vendors), attempts.tools, seals, clock, new_id),
        upstreams=attempts.upstreams,
        facts=runner.facts,
        clock=clock,
        read_back=runner.read_back,
    )
    keeper = LeaseKeeper(store, seconds=settings.lease_seconds, on_fatal=runtime.fail)
    keeper.on_cancelled = runner.stop
    reader = CommandReader(settings.kafka_bootstrap, client_id=name)
    dispatcher = Dispatcher(
        QueueStore(engine, owner=name, seconds=settings.lease_seconds),
        reader,
        keeper,
        bounds=QueueBounds(
            running=settings.max_background,
            per_key=settings.background_per_key,
            overdue_seconds=settings.background_overdue_seconds,
            poll_seconds=settings.background_poll_seconds,
        ),
        on_fatal=runtime.fail,
    )
    commands = CommandIntake(
        operations,
        keeper,
        outbox,
        blobs,
        bounds=Bounds(settings.max_responses, settings.drain_seconds, settings.max_attempts),
        park=dispatcher.park,
    )
    dispatcher.begin(commands)
    watch_worker(metrics, commands, dispatcher)
    watch_providers(metrics, [connection.client.guard for connection in connections.values()])
    consumers = Consumers(
        settings.kafka_bootstrap,
        service="worker",
        dead_letters=dead_letters,
        on_fatal=runtime.fail,
    )
    consumers.subscribe(
        Subscription(
            topics=(RESPONSES_COMMANDS.name,),
            group="worker",
            types=frozenset({RunResponseV1.TYPE}) | OPERATIONS,
            handle=commands.on_run_response,
            max_records=settings.batch_records,
            depth=_CLAIMS_AT_ONCE,
            pace_seconds=settings.tick_ms / 1000,
        )
    )
    watch = ProgressWatch(consumers.lag, clock, seconds=_LIVENESS_SECONDS)
    consumers.on_activity = watch.handled

    async def taking_on() -> bool:
        return commands.full or await watch.moving()

    health = Health(
        readiness={"database": partial(ping, engine), "mcp_servers": catalog.ready},
        liveness={"commands": taking_on},
    )
    server = HttpServer(
        Starlette(routes=health_routes(health)),
        host=settings.host,
        port=settings.port,
        drain_seconds=1,
    )
    republisher = Republisher(producer, bootstrap=settings.kafka_bootstrap, client_id=name)
    sweeper = Sweeper(
        store,
        republisher.republish,
        every_seconds=settings.sweep_seconds,
        on_fatal=runtime.fail,
    )
    results = caller.tail(settings.kafka_bootstrap, dead_letters=dead_letters)

    def stop(response_id: str) -> None:
        runner.stop(response_id)
        # It may wait in the queue: then it need not wait for its turn any more.
        dispatcher.wake()

    control = Control(store, stop, bootstrap=settings.kafka_bootstrap, dead_letters=dead_letters)
    clients: list[Part] = [
        *(connection.client for connection in connections.values()),
        *vendors.values(),
    ]
    parts: list[Part] = [producer, *clients, outbox, catalog, results, keeper, commands, control]
    for part in (*parts, reader, dispatcher, consumers, sweeper, server):
        runtime.add(part)


def main() -> None:
    """Run the worker until it is told to stop."""
    run_service("worker", WorkerSettings, compose)


if __name__ == "__main__":
    main()
