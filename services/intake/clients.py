"""Intake's way to other HTTP servers: the owners of artifacts, costs and MCP, and model lists."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Sequence
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from contracts.providers import ProviderConfig, Providers
from contracts.responses import AttachedFile
from services.intake.errors import model_not_found, unavailable
from services.kit.clock import Clock
from services.kit.settings import secret_variable

logger = logging.getLogger(__name__)
_MODELS_SECONDS = 60.0
_MODELS_TIMEOUT = aiohttp.ClientTimeout(total=5)
_FILES_TIMEOUT = aiohttp.ClientTimeout(total=10)
_FORWARD_TIMEOUT = aiohttp.ClientTimeout(sock_connect=3, sock_read=60)


class HttpClients:
    """One connection pool for everything intake calls."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=200), timeout=_FORWARD_TIMEOUT
        )

    async def stop(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool; only between `start` and `stop`."""
        if self._session is None:
            raise RuntimeError("the HTTP clients are not started")
        return self._session

    async def get_json(self, url: str, headers: dict[str, str]) -> Any:
        """Return the JSON answer to a GET; raises `aiohttp.ClientError` or `TimeoutError`."""
        async with self.session.get(url, headers=headers, timeout=_MODELS_TIMEOUT) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None)

    async def forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | AsyncIterable[bytes]
    ) -> aiohttp.ClientResponse:
        """Send a request on; the caller reads and releases the answer.

        A body that comes in pieces is read no faster than the owner takes it.
        """
        return await self.session.request(
            method, url, headers=headers, data=body or None, allow_redirects=False
        )


class ModelList:
    """The models of all providers: those that are named, and for patterns what they tell."""

    def __init__(self, providers: Providers, clients: HttpClients, clock: Clock) -> None:
        self._providers = providers
        self._clients = clients
        self._clock = clock
        self._created = int(clock.now().timestamp())
        self._known: list[dict[str, Any]] = []
        self._asked_at = -_MODELS_SECONDS
        self._lock = asyncio.Lock()

    async def all(self) -> list[dict[str, Any]]:
        """Return model objects of the API; what providers tell is kept for a minute."""
        async with self._lock:
            if self._clock.monotonic() - self._asked_at >= _MODELS_SECONDS:
                lists = await asyncio.gather(
                    *(self._of(provider) for provider in self._providers.providers)
                )
                unique = {model["id"]: model for models in reversed(lists) for model in models}
                self._known = sorted(unique.values(), key=lambda model: str(model["id"]))
                self._asked_at = self._clock.monotonic()
        return self._known

    async def one(self, name: str) -> dict[str, Any]:
        """Return one model object; raises `ApiError` (404)."""
        for model in await self.all():
            if model["id"] == name:
                return model
        serving = self._providers.serving(name)
        if not serving or all(name not in provider.named_models for provider in serving):
            raise model_not_found(name)
        return self._object(name, serving[0].name)

    async def _of(self, provider: ProviderConfig) -> list[dict[str, Any]]:
        named = [self._object(name, provider.name) for name in provider.named_models]
        if len(named) == len(provider.models) + len(provider.aliases):
            return named
        key = secret_variable(provider.api_key_env) if provider.api_key_env else ""
        headers = {**provider.headers, **({"authorization": f"Bearer {key}"} if key else {})}
        url = provider.base_url.rstrip("/") + "/models"
        try:
            listed = (await self._clients.get_json(url, headers))["data"]
            told = [
                self._object(str(model["id"]), str(model.get("owned_by") or provider.name))
                for model in listed
                if provider.serves(str(model["id"]))
            ]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            logger.warning("the provider %s did not list its models: %r", provider.name, error)
            return named
        return [*named, *told]

    def _object(self, name: str, owner: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": owner}


class ArtifactFiles:
    """Implements `files.FileDirectory` by asking the artifacts service."""

    def __init__(self, clients: HttpClients, *, base_url: str, internal_token: str) -> None:
        self._clients = clients
        self._url = base_url.rstrip("/") + "/internal/files"
        self._headers = {"authorization": f"Bearer {internal_token}"}

    async def named(self, ids: Sequence[str], *, project: str) -> list[AttachedFile]:
        """Return those of the files that the project has; raises `ApiError` (503)."""
        headers = {**self._headers, "x-antiphon-project": project}
        asking = self._clients.session.post(
            self._url, json={"ids": list(ids)}, headers=headers, timeout=_FILES_TIMEOUT
        )
        try:
            async with asking as answer:
                answer.raise_for_status()
                found = (await answer.json(loads=orjson.loads))["files"]
                return [AttachedFile.model_validate(file) for file in found]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            logger.warning("the files of a request could not be looked up: %r", error)
            raise unavailable("The owner of files does not answer, try again.") from error
