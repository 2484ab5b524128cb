"""The HTTP edge: the routes, the WebSocket and the server."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.routing import BaseRoute

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
from services.intake.clients import ModelList
from services.intake.settings import IntakeSettings
from services.intake.sockets.lanes import Contexts
from services.intake.sockets.sessions import Sessions
from services.intake.streaming.draining import Draining
from services.intake.wiring.admission import Admission
from services.intake.wiring.history import History
from services.intake.wiring.shared import Shared
from services.intake.wiring.streams import Streams
from services.intake.wiring.use_cases import UseCases
from services.kit.health import Health
from services.kit.http import HttpServer, health_routes
from services.kit.websockets import WebSocketBounds

_LET_GO_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Inside:
    """What the HTTP edge stands before."""

    admission: Admission
    streams: Streams
    history: History
    use_cases: UseCases


def wire_app(shared: Shared, inside: Inside, health: Health) -> IntakeApp:
    """Wire the application: creating a response and the WebSocket apart, the rest by route."""
    settings = shared.settings
    keys, use_cases = inside.admission.keys, inside.use_cases
    seats = inside.admission.seats
    create = CreateEndpoint(
        use_cases.responses,
        keys,
        max_body_bytes=settings.max_body_bytes,
        keyed=KeyedCreate(use_cases.idempotency, use_cases.kept, most=settings.max_open_requests),
        seats=seats,
    )
    contexts = Contexts(max_bytes=settings.websocket_context_bytes)
    sockets = WebSocketEndpoint(
        Sessions(use_cases.responses, inside.history.store, contexts),
        keys,
        SocketBounds(
            max_connections=settings.max_websockets,
            max_seconds=settings.websocket_seconds,
            max_message_bytes=settings.max_body_bytes,
            fair_from=settings.fair_share_from,
        ),
        seats,
    )
    routes = [
        *health_routes(health),
        *openapi_routes(),
        *_own_routes(shared, inside),
        *_forwarded_routes(shared, inside.admission),
    ]
    return IntakeApp(create, routes, sockets)


def wire_server(settings: IntakeSettings, app: IntakeApp) -> HttpServer:
    """Wire what listens; it is a part that starts and stops."""
    return HttpServer(
        app,
        host=settings.host,
        port=settings.port,
        # What is under way is let go in order before it is cut off.
        drain_seconds=settings.drain_seconds + _LET_GO_SECONDS,
        stall_seconds=settings.stall_seconds,
        sockets=WebSocketBounds(
            max_message_bytes=settings.max_body_bytes,
            ping_seconds=settings.websocket_ping_seconds,
            stall_seconds=settings.stall_seconds,
        ),
    )


def wire_draining(settings: IntakeSettings, health: Health, streams: Streams) -> Draining:
    """Wire how a stop begins; it is a part that stops before the server does."""
    return Draining(
        health,
        streams.hubs,
        delay_seconds=settings.drain_delay_seconds,
        drain_seconds=settings.drain_seconds,
    )


def _own_routes(shared: Shared, inside: Inside) -> list[BaseRoute]:
    settings = shared.settings
    keys, history, use_cases = inside.admission.keys, inside.history, inside.use_cases
    operations = OperationRoutes(
        use_cases.operations,
        keys,
        max_body_bytes=settings.max_body_bytes,
        seats=inside.admission.seats,
    )
    models = ModelList(shared.providers, shared.clients, shared.clock)
    responses = Routes(use_cases.kept, inside.streams.resumer, keys, models)
    conversations = ConversationRoutes(
        history.conversations, history.inputs, keys, max_body_bytes=settings.max_body_bytes
    )
    key_routes = KeyRoutes(keys, shared.clock, max_grace_seconds=settings.max_key_grace_seconds)
    return [
        *operations.routes(),
        *responses.routes(),
        *conversations.routes(),
        *key_routes.routes(),
    ]


def _forwarded_routes(shared: Shared, admission: Admission) -> list[BaseRoute]:
    """Return the routes of resources that other services own, by the start of their paths."""
    settings = shared.settings
    forwarder = Forwarder(
        shared.clients,
        admission.keys,
        internal_token=settings.antiphon_internal_token.get_secret_value(),
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
    return forwarder.routes(owners)
