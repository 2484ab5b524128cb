"""The composition root of the costs service: the only place that wires."""

from __future__ import annotations

from services.costs.api import create_app
from services.costs.clients.announcer import KafkaAnnouncer
from services.costs.clients.payloads import BlobPayloads
from services.costs.clients.price_file import HOSTED_TOOL_PRICES, FilePrices
from services.costs.clients.published import PublishedPrices
from services.costs.domain.prices import LayeredBook, PriceBook
from services.costs.service import Bookkeeper
from services.costs.settings import CostsSettings
from services.costs.store import LedgerStore
from services.costs.subscribers import billable_facts, on_billable
from services.kit.blobs.opening import open_blobs
from services.kit.clock import SystemClock
from services.kit.consumer import Consumers
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.letterbox import LetterGauge
from services.kit.producer import Producer
from services.kit.runtime import Runtime, run_service

_LETTERS_SECONDS = 30.0


def price_book(settings: CostsSettings) -> LayeredBook:
    """Return, in this order: the operator's prices, the published ones, ours for hosted tools."""
    books: list[PriceBook] = [PublishedPrices(), FilePrices.load(HOSTED_TOOL_PRICES)]
    if settings.prices is not None:
        books.insert(0, FilePrices.load(settings.prices))
    return LayeredBook(books)


async def compose(settings: CostsSettings, runtime: Runtime) -> None:
    """Build the service from its settings; nothing is connected before the runtime starts it."""
    clock = SystemClock()
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name="costs")
    ledger = LedgerStore(engine, clock)
    producer = Producer(settings.kafka_bootstrap, client_id="costs")
    consumers = Consumers(
        settings.kafka_bootstrap,
        service="costs",
        dead_letters=DeadLetters(producer, service="costs"),
        on_fatal=runtime.fail,
    )
    watch = ProgressWatch(consumers, clock, seconds=settings.stall_seconds)
    bookkeeper = Bookkeeper(
        book=price_book(settings),
        ledger=ledger,
        payloads=BlobPayloads(open_blobs(settings)),
        announcer=KafkaAnnouncer(producer),
    )
    consumers.subscribe(
        billable_facts(
            on_billable(bookkeeper, watch),
            group=settings.consumer_group,
            batch=settings.batch_records,
        )
    )

    async def consuming() -> bool:
        return consumers.lag() is not None

    health = Health(
        readiness={"database": lambda: ping(engine), "consumer": consuming},
        liveness={"progress": watch.moving},
    )
    app = create_app(
        ledger,
        token=settings.antiphon_internal_token.get_secret_value(),
        health=health_routes(health),
    )
    server = HttpServer(
        app, host=settings.host, port=settings.port, drain_seconds=settings.shutdown_seconds / 2
    )
    letters = LetterGauge(settings.kafka_bootstrap, every_seconds=_LETTERS_SECONDS)
    for part in (producer, consumers, letters, server):
        runtime.add(part)


def main() -> None:
    """Run the service: `antiphon-costs`, or `python -m services.costs.main`."""
    run_service("costs", CostsSettings, compose)


if __name__ == "__main__":
    main()
