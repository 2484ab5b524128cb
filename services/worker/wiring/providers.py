"""The providers: a connection for each, and what one sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.providers import ProviderConfig, Providers
from services.kit.ids import new_id
from services.kit.settings import secret_variable
from services.worker.clients import ProviderConnection
from services.worker.providers.client import UpstreamClient
from services.worker.providers.guard import Guard
from services.worker.providers.on_demand import OnDemandVendor
from services.worker.providers.turns import ChatTurns, ResponsesTurns
from services.worker.wiring.shared import Shared


@dataclass(frozen=True, slots=True)
class Connections:
    """The `clients` are parts that start and stop; `vendors` are for calls off the hot path."""

    known: Providers
    by_name: dict[str, ProviderConnection]
    vendors: dict[str, OnDemandVendor]

    def serving(self, model: str) -> list[ProviderConnection]:
        """Return the connections of those that serve a model, in the order they are asked."""
        return [self.by_name[provider.name] for provider in self.known.serving(model)]

    @property
    def clients(self) -> list[UpstreamClient | OnDemandVendor]:
        """Both kinds, of all providers."""
        return [*(one.client for one in self.by_name.values()), *self.vendors.values()]


def wire_providers(shared: Shared) -> Connections:
    """Connect every provider of the providers file."""
    known = shared.settings.providers()
    connections = Connections(
        known=known,
        by_name={config.name: _connect(config, shared) for config in known.providers},
        vendors={
            config.name: _vendor(config, shared)
            for config in known.providers
            if config.dialect == "responses"
        },
    )
    _watch(shared, [connection.client.guard for connection in connections.by_name.values()])
    return connections


def _connect(config: ProviderConfig, shared: Shared) -> ProviderConnection:
    """Return the client and turns of one provider."""
    settings = shared.settings
    client = UpstreamClient(
        config,
        api_key=_api_key(config),
        max_response_bytes=settings.max_response_bytes,
        metrics=shared.metrics,
    )
    client.guard.tracing = shared.tracing
    turns = (
        ResponsesTurns(client, max_event_bytes=settings.max_event_bytes)
        if config.dialect == "responses"
        else ChatTurns(client, max_event_bytes=settings.max_event_bytes, new_id=new_id)
    )
    return ProviderConnection(config, client, turns)


def _vendor(config: ProviderConfig, shared: Shared) -> OnDemandVendor:
    """Return the official client of a provider, for its calls off the hot path."""
    return OnDemandVendor(
        config,
        api_key=_api_key(config),
        max_response_bytes=shared.settings.max_response_bytes,
    )


def _api_key(config: ProviderConfig) -> str:
    """Return a provider's key, from the variable that the providers file names."""
    return secret_variable(config.api_key_env) if config.api_key_env else ""


def _watch(shared: Shared, guards: Sequence[Guard]) -> None:
    """Show the breaker and the open calls of each provider."""
    shared.metrics.watch_each(
        "provider_state",
        "Breaker of a provider: 0 closed, 1 half open, 2 open",
        {guard.name: guard.breaker_state for guard in guards},
        label="provider",
    )
    shared.metrics.watch_each(
        "provider_calls",
        "Calls of a provider that are under way",
        {guard.name: guard.calls_under_way for guard in guards},
        label="provider",
    )
