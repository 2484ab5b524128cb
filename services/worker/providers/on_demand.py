"""The official client of a provider, loaded when it is first asked."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from contracts.providers import ProviderConfig

if TYPE_CHECKING:
    from services.worker.providers.vendor import VendorClient

_MODULE = "services.worker.providers.vendor"


class OnDemandVendor:
    """A `VendorClient` to be: the package behind it is 16 MB that most workers never need."""

    def __init__(self, config: ProviderConfig, *, api_key: str, max_response_bytes: int) -> None:
        self._config = config
        self._api_key = api_key
        self._max_response_bytes = max_response_bytes
        self._client: VendorClient | None = None

    async def start(self) -> None:
        """Do nothing: the first call loads it."""

    async def stop(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.stop()

    async def count_input_tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the object `response.input_tokens`; raises `UpstreamError`."""
        return await (await self._loaded()).count_input_tokens(body)

    async def compact(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the object `response.compaction`; raises `UpstreamError`."""
        return await (await self._loaded()).compact(body)

    async def retrieve(self, response_id: str) -> dict[str, Any]:
        """Return a response that the provider keeps; raises `UpstreamError`."""
        return await (await self._loaded()).retrieve(response_id)

    async def cancel(self, response_id: str) -> dict[str, Any]:
        """Stop a background response of the provider's; raises `UpstreamError`."""
        return await (await self._loaded()).cancel(response_id)

    async def _loaded(self) -> VendorClient:
        if self._client is None:
            # In a thread: it takes half a second, and streams go on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, _MODULE)
            if self._client is None:
                self._client = module.VendorClient(
                    self._config,
                    api_key=self._api_key,
                    max_response_bytes=self._max_response_bytes,
                )
        assert self._client is not None
        return self._client
