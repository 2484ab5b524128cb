"""The composition root of the webhooks service: the only place that wires its parts."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from contracts.topics import RESPONSES_LIFECYCLE
from services.kit.batches import Subscription
from services.kit.clock import SystemClock
from services.kit.consumer import Consumers
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.producer import Producer
from services.kit.runtime import Runtime, run_service
from services.kit.seal import Sealer
from services.webhooks.api import ERRORS, Api
from services.webhooks.clients.sender import HttpSender
from services.webhooks.dispatcher import Dispatcher, Pace
from services.webhooks.domain.addresses import AddressRules
from services.webhooks.secrets import SecretKeeper
from services.webhooks.service import Registry
from services.webhooks.settings import WebhooksSettings
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from services.webhooks.subscribers import TYPES, LifecycleSubscriber

SERVICE = "webhooks"
_PACE_SECONDS = 0.1


class _Database:
    """Lets go of the database at the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        await self._engine.dispose()


def pace(settings: WebhooksSettings) -> Pace:
    """Return the bounds of the dispatcher."""
    return Pace(
        concurrency=settings.concurrency,
        lease=timedelta(seconds=settings.lease_seconds),
        poll_seconds=settings.poll_seconds,
        stop_seconds=settings.shutdown_seconds / 4,
        keep=timedelta(days=settings.keep_days),
        sweep_seconds=settings.sweep_seconds,
    )


def http_sender(rules: AddressRules, settings: WebhooksSettings) -> HttpSender:
    """Return what delivers to the addresses that the rules allow."""
    return HttpSender(
        rules,
        connect_seconds=settings.connect_seconds,
        total_seconds=settings.timeout_seconds,
        concurrency=settings.concurrency,
    )


def subscription(subscriber: LifecycleSubscriber, settings: WebhooksSettings) -> Subscription:
    """Return what is read of the topic that has the ends of responses."""
    return Subscription(
        topics=(RESPONSES_LIFECYCLE.name,),
        group=SERVICE,
        preselect=subscriber.preselect,
        handle=subscriber.on_lifecycle,
        types=TYPES,
        max_records=settings.batch_records,
        pace_seconds=_PACE_SECONDS,
    )


def http_server(health: Health, api: Api, settings: WebhooksSettings) -> HttpServer:
    """Return what serves the probes and the routes."""
    app = Starlette(routes=[*health_routes(health), *api.routes()], exception_handlers=ERRORS)
    # A redirect would name this server, which nobody but intake can reach.
    app.router.redirect_slashes = False
    return HttpServer(
        app, host=settings.host, port=settings.port, drain_seconds=settings.shutdown_seconds / 2
    )


async def compose(settings: WebhooksSettings, runtime: Runtime) -> None:
    """Build the service and add its parts to the runtime."""
    clock = SystemClock()
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name=SERVICE)
    deliveries = PostgresDeliveries(
        engine, per_endpoint=settings.endpoint_concurrency, trip=settings.trip_failures
    )
    rules = settings.address_rules
    sender = http_sender(rules, settings)
    secrets = SecretKeeper(Sealer(settings.seal_secrets))
    dispatcher = Dispatcher(
        deliveries,
        sender,
        secrets,
        rule=settings.retry_rule,
        pace=pace(settings),
        clock=clock,
    )
    producer = Producer(settings.kafka_bootstrap, client_id=SERVICE)
    consumers = Consumers(
        settings.kafka_bootstrap,
        service=SERVICE,
        dead_letters=DeadLetters(producer, service=SERVICE),
        on_fatal=runtime.fail,
    )
    watch = ProgressWatch(consumers, clock, seconds=settings.stall_seconds)
    subscriber = LifecycleSubscriber(
        deliveries, clock, handled=watch.handled, notify=dispatcher.wake
    )
    consumers.subscribe(subscription(subscriber, settings))

    async def joined() -> bool:
        return consumers.lag() is not None

    health = Health(
        readiness={"database": partial(ping, engine), "kafka": joined},
        liveness={"progress": watch.moving, "dispatcher": dispatcher.alive},
    )
    registry = Registry(
        PostgresEndpoints(engine), secrets, sender, rules=rules, most=settings.max_endpoints
    )
    token = settings.antiphon_internal_token.get_secret_value()
    api = Api(registry, clock, token=token, wake=dispatcher.wake)
    server = http_server(health, api, settings)
    for part in (_Database(engine), producer, sender, dispatcher, consumers, server):
        runtime.add(part)


def main() -> None:
    """Run the service until it is told to end."""
    run_service(SERVICE, WebhooksSettings, compose)


if __name__ == "__main__":
    main()
