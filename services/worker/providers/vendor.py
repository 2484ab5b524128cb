"""One Responses-native provider through the official client: calls off the hot path."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncAPIResponse,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
    OpenAIError,
    Timeout,
)

from contracts.providers import ProviderConfig
from services.worker.errors import UpstreamError
from services.worker.providers.client import refusal


class VendorClient:
    """Calls of one provider beside its create call; every failure is an `UpstreamError`.

    Answers are returned as the provider wrote them, so that fields newer than the client's types
    get through. Connects when it is first asked.
    """

    def __init__(self, config: ProviderConfig, *, api_key: str, max_response_bytes: int) -> None:
        self.config = config
        self._api_key = api_key
        self._max_response_bytes = max_response_bytes
        self._client: AsyncOpenAI | None = None

    async def start(self) -> None:
        """Do nothing: most workers are never asked."""

    async def stop(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()

    async def count_input_tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the object `response.input_tokens` for a request's body."""
        try:
            counts = self._connected().responses.input_tokens.with_streaming_response
            async with counts.count(extra_body=body) as answer:
                return _object(await self._read(answer))
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self._failure(error) from error

    async def compact(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the object `response.compaction` for a request's body."""
        try:
            responses = self._connected().responses.with_streaming_response
            async with responses.compact(model=body["model"], extra_body=body) as answer:
                return _object(await self._read(answer))
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self._failure(error) from error

    async def retrieve(self, response_id: str) -> dict[str, Any]:
        """Return the provider's response of that id as it is now."""
        try:
            responses = self._connected().responses.with_streaming_response
            async with responses.retrieve(response_id) as answer:
                return _object(await self._read(answer))
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self._failure(error) from error

    async def cancel(self, response_id: str) -> dict[str, Any]:
        """Stop the provider's background response of that id; return it as it is then."""
        try:
            responses = self._connected().responses.with_streaming_response
            async with responses.cancel(response_id) as answer:
                return _object(await self._read(answer))
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self._failure(error) from error

    async def _read(self, answer: AsyncAPIResponse[Any]) -> bytes:
        parts: list[bytes] = []
        room = self._max_response_bytes
        async for part in answer.iter_bytes():
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise UpstreamError("the provider's answer is too large", retryable=False)
        return b"".join(parts)

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            config = self.config
            timeout = Timeout(config.total_timeout_seconds, connect=config.connect_timeout_seconds)
            self._client = AsyncOpenAI(
                base_url=config.base_url,
                # The client insists on a key; a server that needs none ignores it.
                api_key=self._api_key or "none",
                timeout=timeout,
                # Attempts are counted by whoever asks, for all kinds of calls alike.
                max_retries=0,
                default_headers=dict(config.headers),
                http_client=DefaultAsyncHttpxClient(timeout=timeout, trust_env=False),
            )
        return self._client

    def _failure(self, error: Exception) -> UpstreamError:
        if isinstance(error, APIStatusError):
            headers = error.response.headers
            return refusal(error.status_code, error.response.content, headers.get("retry-after"))
        name = self.config.name
        # While a body is read, it is the client's transport that fails.
        if isinstance(error, APITimeoutError | httpx2.TimeoutException):
            # The work may be paid for: it is not asked for again.
            return UpstreamError(
                f"the provider {name} did not answer in time", status=504, retryable=False
            )
        if isinstance(error, APIConnectionError | httpx2.HTTPError):
            return UpstreamError(f"the connection to the provider {name} failed")
        return UpstreamError(f"the provider {name} did not answer as expected")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UpstreamError("the provider's answer is no JSON") from error
    if not isinstance(parsed, dict):
        raise UpstreamError("the provider's answer is no JSON object")
    return parsed
