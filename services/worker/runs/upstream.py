"""What a run needs of providers and of the tools that run outside of them."""

from __future__ import annotations

from typing import Protocol

from contracts.providers import ProviderConfig
from contracts.tools import ToolResultV1
from services.worker.domain import Job
from services.worker.providers.client import UpstreamClient
from services.worker.providers.turns import Turns
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan


class Upstream(Protocol):
    """A provider as a run uses it."""

    @property
    def config(self) -> ProviderConfig:
        """Its settings."""
        ...

    @property
    def client(self) -> UpstreamClient:
        """Its HTTP client, for what goes through as bytes."""
        ...

    @property
    def turns(self) -> Turns:
        """Its model turns, for what is composed here."""
        ...


class Tools(Protocol):
    """The tools that run outside of the provider."""

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        """Sort the request's tools; raises `RequestRefusedError`."""
        ...

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        """Run one call; every failure is a result."""
        ...
