"""The composition root of the MCP broker."""

from __future__ import annotations

from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from services.kit.clock import SystemClock
from services.kit.consumer import Consumers
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, Probe, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.ids import new_id
from services.kit.outages import OUTAGES
from services.kit.producer import Producer
from services.kit.runtime import Runtime, run_service
from services.mcp_broker.api import api_routes
from services.mcp_broker.clients.pool import ServerPool
from services.mcp_broker.clients.publishers import DiscoveryPublisher, ResultPublisher
from services.mcp_broker.domain import Limits
from services.mcp_broker.service import Broker, Policy, Ports
from services.mcp_broker.settings import McpBrokerSettings
from services.mcp_broker.store import PostgresCalls
from services.mcp_broker.subscribers import commands

NAME = "mcp_broker"
_LISTING_SECONDS = 5.0


async def compose(settings: McpBrokerSettings, runtime: Runtime) -> None:
    """Build the parts of the service; they start in the order of adding."""
    clock = SystemClock()
    producer = Producer(settings.kafka_bootstrap, client_id=NAME)
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name=NAME)
    configs = settings.read_servers()
    discoveries = DiscoveryPublisher(
        producer,
        bootstrap=settings.kafka_bootstrap,
        labels=frozenset(config.label for config in configs),
        clock=clock,
    )
    limits = Limits(
        output_bytes=settings.output_max_bytes, content_bytes=settings.content_max_bytes
    )
    servers = ServerPool(configs, clock=clock, limits=limits, on_change=discoveries.publish)
    records = PostgresCalls(engine, owner=new_id(NAME), lease_seconds=settings.lease_seconds)
    broker = Broker(
        Ports(
            records=records, tools=servers, results=ResultPublisher(producer, clock), clock=clock
        ),
        _policy(settings),
        on_fatal=runtime.fail,
    )
    consumers = Consumers(
        settings.kafka_bootstrap,
        service=NAME,
        dead_letters=DeadLetters(producer, service=NAME),
        on_fatal=runtime.fail,
    )
    watch = ProgressWatch(consumers, clock, seconds=settings.stuck_seconds)
    consumers.subscribe(commands(broker, watch, max_records=settings.max_records))
    health = Health(
        readiness=_readiness(engine, consumers),
        liveness={
            "commands": watch.moving,
            "calls": broker.alive,
            "servers": servers.alive,
            "discovery": discoveries.alive,
        },
    )
    server = _http(settings, servers, health)
    for part in (_Database(engine), producer, discoveries, servers, broker, consumers, server):
        runtime.add(part)


class _Database:
    """Closes the connections when all that used them has stopped."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def start(self) -> None:
        """Do nothing: the engine connects when it is first used."""

    async def stop(self) -> None:
        """Close the pool."""
        await self._engine.dispose()


def _policy(settings: McpBrokerSettings) -> Policy:
    return Policy(
        lease_seconds=settings.lease_seconds,
        max_call_seconds=settings.max_call_seconds,
        retention_seconds=settings.retention_hours * 3600,
        purge_seconds=settings.purge_seconds,
        drain_seconds=settings.drain_seconds,
        transient=OUTAGES,
    )


def _readiness(engine: AsyncEngine, consumers: Consumers) -> dict[str, Probe]:
    async def database() -> bool:
        return await ping(engine)

    async def joined() -> bool:
        return consumers.lag() is not None

    # A server that is away makes its own calls fail, not the broker.
    return {"database": database, "kafka": joined}


def _http(settings: McpBrokerSettings, servers: ServerPool, health: Health) -> HttpServer:
    token = settings.antiphon_internal_token.get_secret_value()
    listing = partial(servers.listing, seconds=_LISTING_SECONDS)
    routes = [*health_routes(health), *api_routes(listing, token=token)]
    return HttpServer(
        Starlette(routes=routes),
        host=settings.host,
        port=settings.port,
        drain_seconds=settings.drain_seconds,
    )


def main() -> None:
    """Run the service until it is told to stop."""
    run_service(NAME, McpBrokerSettings, compose)


if __name__ == "__main__":
    main()
