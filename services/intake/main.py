"""Intake's composition root."""

from __future__ import annotations

from functools import partial

from contracts.responses import (
    ResponseDeletedV1,
    ResponseFinishedV1,
    ResponseStartedV1,
    RunResponseV1,
)
from contracts.topics import RESPONSES_COMMANDS, RESPONSES_EVENTS, RESPONSES_LIFECYCLE
from services.intake.admission.keys import ApiKeys
from services.intake.admission.limiter import Patience, RateLimiter
from services.intake.admission.limits_store import LimitSweeper, SharedLimits
from services.intake.admission.settling import Settler
from services.intake.api.app import IntakeApp
from services.intake.api.conversations import ConversationRoutes
from services.intake.api.create import CreateEndpoint
from services.intake.api.forward import Forwarder
from services.intake.api.keyed import KeyedCreate
from services.intake.api.keys import KeyRoutes
from services.intake.api.openapi import openapi_routes
from services.intake.api.operations import OperationRoutes
from services.intake.api.routes import Routes
from services.intake.api.websocket import SocketBounds, WebSocketEndpoint
from services.intake.clients import ArtifactFiles, HttpClients, ModelList
from services.intake.conversations.service import Conversations
from services.intake.conversations.store import ConversationStore
from services.intake.conversations.turns import TurnTaker
from services.intake.conversations.turns_store import TurnStore
from services.intake.files import RequestFiles
from services.intake.idempotency.service import Idempotency
from services.intake.idempotency.store import IdempotencyStore
from services.intake.idempotency.sweeper import IdempotencySweeper
from services.intake.items.history import Reader
from services.intake.items.inputs import InputItems
from services.intake.operations.service import Operations
from services.intake.service import Bounds, Responses
from services.intake.settings import IntakeSettings
from services.intake.sockets.lanes import Contexts
from services.intake.sockets.sessions import Sessions
from services.intake.store import ResponseStore
from services.intake.streaming.followers import Hubs
from services.intake.streaming.resume import Resumer
from services.intake.streaming.seats import Seat
from services.intake.subscribers import Projection
from services.kit.blobs import open_blobs
from services.kit.clock import SystemClock
from services.kit.consumer import Consumers, Subscription
from services.kit.database import create_engine, ping
from services.kit.deadletters import DeadLetters
from services.kit.health import Health, ProgressWatch
from services.kit.http import HttpServer, health_routes
from services.kit.producer import Producer
from services.kit.runtime import Part, Runtime, run_service
from services.kit.websockets import WebSocketBounds

_LIVENESS_SECONDS = 60.0
_PROJECTION_PACE_SECONDS = 0.05
_IDEMPOTENCY_PATIENCE_SECONDS = 1.0
_PROJECTED = frozenset(
    contract.TYPE
    for contract in (RunResponseV1, ResponseStartedV1, ResponseFinishedV1, ResponseDeletedV1)
)


async def compose(settings: IntakeSettings, runtime: Runtime) -> None:
    """Wire intake."""
    clock = SystemClock()
    providers = settings.providers()
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, name="intake")
    blobs = open_blobs(settings)
    producer = Producer(settings.kafka_bootstrap, client_id="intake")
    dead_letters = DeadLetters(producer, service="intake")
    keys = ApiKeys(
        producer,
        clock,
        admin_secret=settings.antiphon_admin_key.get_secret_value(),
        most=settings.max_keys,
    )
    # A connection of its own: who is limited does not wait behind reads, nor they behind him.
    limits_engine = create_engine(settings.database_url, pool_size=2, name="intake-limits")
    shared_limits = SharedLimits(limits_engine, debt_minutes=settings.limit_debt_minutes)
    limiter = RateLimiter(
        shared_limits,
        clock,
        Patience(
            answer_seconds=settings.limit_timeout_seconds,
            pause_seconds=settings.limit_pause_seconds,
            waiting=settings.max_open_requests,
        ),
    )
    key_tail = keys.tail(settings.kafka_bootstrap, dead_letters=dead_letters)
    seat = _seat(settings)
    hubs = Hubs(
        settings.kafka_bootstrap,
        own_partition=await seat.take() if seat else settings.preferred_partition(),
        dead_letters=dead_letters,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    store = ResponseStore(engine)
    reader = Reader(store, clock, wait_seconds=settings.projection_wait_seconds)
    turn_store = TurnStore(
        engine,
        # Longer than any request waits for Kafka, with time for its command to be projected.
        reserved_seconds=6 * settings.accept_timeout_seconds,
        run_seconds=settings.response_timeout_seconds,
        max_bytes=settings.max_history_bytes,
    )
    turns = TurnTaker(turn_store, clock, wait_seconds=settings.projection_wait_seconds)
    clients = HttpClients()
    files = _request_files(settings, clients)
    responses = Responses(
        files=files,
        producer=producer,
        hub=hubs.own,
        reader=reader,
        store=store,
        turns=turns,
        blobs=blobs,
        providers=providers,
        clock=clock,
        bounds=Bounds(
            accept_seconds=settings.accept_timeout_seconds,
            response_seconds=settings.response_timeout_seconds,
            max_open=settings.max_open_requests,
            max_chain=settings.max_chain,
            max_history_bytes=settings.max_history_bytes,
            stream_buffer_bytes=settings.max_stream_buffer_bytes,
            estimated_output_tokens=settings.limit_output_tokens,
        ),
        limits=limiter,
    )
    resumer = Resumer(
        hubs,
        blobs,
        bootstrap=settings.kafka_bootstrap,
        buffer_bytes=settings.max_stream_buffer_bytes,
    )
    idempotency_keys = IdempotencyStore(
        engine,
        keep_seconds=settings.idempotency_seconds,
        patience_seconds=_IDEMPOTENCY_PATIENCE_SECONDS,
    )
    idempotency = Idempotency(
        idempotency_keys,
        responses,
        resumer,
        wait_seconds=settings.accept_timeout_seconds + settings.projection_wait_seconds,
    )
    consumers = Consumers(
        settings.kafka_bootstrap,
        service="intake",
        dead_letters=dead_letters,
        on_fatal=runtime.fail,
    )
    consumers.subscribe(
        Subscription(
            topics=(RESPONSES_COMMANDS.name, RESPONSES_LIFECYCLE.name),
            group="intake",
            types=_PROJECTED,
            handle=Projection(
                store, turn_store, blobs, clock, Settler(keys.limits_of, shared_limits)
            ).on_messages,
            pace_seconds=_PROJECTION_PACE_SECONDS,
        )
    )
    watch = ProgressWatch(consumers.lag, clock, seconds=_LIVENESS_SECONDS)

    consumers.on_activity = watch.handled

    async def keys_known() -> bool:
        return key_tail.caught_up.is_set()

    health = Health(
        readiness={"database": partial(ping, engine), "keys": keys_known},
        liveness={"projection": watch.moving, "events": hubs.own.alive},
    )
    forwarder = Forwarder(
        clients, keys, internal_token=settings.antiphon_internal_token.get_secret_value()
    )
    owners = {
        "/v1/artifacts": settings.artifacts_url,
        "/v1/files": settings.artifacts_url,
        "/v1/costs": settings.costs_url,
        "/v1/mcp": settings.mcp_broker_url,
        "/v1/webhook_endpoints": settings.webhooks_url,
        "/v1/webhook_event_types": settings.webhooks_url,
        "/v1/webhooks": settings.webhooks_url,
    }
    routes = Routes(responses, resumer, keys, ModelList(providers, clients, clock))
    conversation_routes = ConversationRoutes(
        Conversations(ConversationStore(engine), turns, reader.has_told, clock, files),
        InputItems(reader, turns, max_chain=settings.max_chain),
        keys,
        max_body_bytes=settings.max_body_bytes,
    )
    operation_routes = OperationRoutes(
        Operations(responses, ConversationStore(engine), turns),
        keys,
        max_body_bytes=settings.max_body_bytes,
    )
    app = IntakeApp(
        CreateEndpoint(
            responses,
            keys,
            max_body_bytes=settings.max_body_bytes,
            keyed=KeyedCreate(idempotency),
        ),
        [
            *health_routes(health),
            *openapi_routes(),
            *operation_routes.routes(),
            *routes.routes(),
            *conversation_routes.routes(),
            *KeyRoutes(keys, clock, max_grace_seconds=settings.max_key_grace_seconds).routes(),
            *forwarder.routes(owners),
        ],
        WebSocketEndpoint(
            Sessions(responses, Contexts(max_bytes=settings.websocket_context_bytes)),
            keys,
            SocketBounds(
                max_connections=settings.max_websockets,
                max_seconds=settings.websocket_seconds,
                max_message_bytes=settings.max_body_bytes,
            ),
        ),
    )
    server = HttpServer(
        app,
        host=settings.host,
        port=settings.port,
        drain_seconds=settings.shutdown_seconds / 2,
        stall_seconds=settings.stall_seconds,
        sockets=WebSocketBounds(
            max_message_bytes=settings.max_body_bytes,
            ping_seconds=settings.websocket_ping_seconds,
            stall_seconds=settings.stall_seconds,
        ),
    )
    sweeper = IdempotencySweeper(idempotency_keys)
    limit_sweeper = LimitSweeper(
        shared_limits, limits_engine, hours=settings.limit_reservation_hours
    )
    parts: list[Part] = [
        *(limit_sweeper, producer, key_tail, hubs, clients, consumers, sweeper, limiter, server)
    ]
    if seat is not None:
        runtime.add(seat)
    for part in parts:
        runtime.add(part)


def _request_files(settings: IntakeSettings, clients: HttpClients) -> RequestFiles | None:
    """Return what finds the files of requests; None when their owner's address is not known."""
    if settings.artifacts_url is None:
        return None
    token = settings.antiphon_internal_token.get_secret_value()
    return RequestFiles(
        ArtifactFiles(clients, base_url=settings.artifacts_url, internal_token=token),
        max_files=settings.max_request_files,
        max_bytes=settings.max_request_file_bytes,
    )


def _seat(settings: IntakeSettings) -> Seat | None:
    """Return what finds this replica a partition of its own; None when it was given one."""
    if settings.events_partition is not None:
        return None
    return Seat(
        create_engine(settings.database_url, pool_size=1, name="intake-seat"),
        partitions=RESPONSES_EVENTS.partitions,
        preferred=settings.preferred_partition(),
    )


def main() -> None:
    """Run intake until it is told to stop."""
    run_service("intake", IntakeSettings, compose)


if __name__ == "__main__":
    main()
