"""One provider over HTTP, on aiohttp: bytes in, bytes out, every failure an `UpstreamError`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
from yarl import URL

from contracts.providers import ProviderConfig
from services.worker.errors import UpstreamError
from services.worker.metrics import WorkerMetrics
from services.worker.providers.answer import Answer
from services.worker.providers.guard import Guard

_ERROR_BODY_BYTES = 64 * 1024
_LONGEST_SECONDS = 86_400.0
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_CLIENT_STATUS = frozenset({400, 404, 409, 413, 415, 422, 429})


class UpstreamClient:
    """Posts to one provider through a bounded pool of connections; safe for concurrent use."""

    def __init__(
        self,
        config: ProviderConfig,
        *,
        api_key: str,
        max_response_bytes: int,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self.config = config
        self.guard = Guard(config, metrics)
        self._api_key = api_key
        self._max_response_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None
        # Parsed once: there are two paths.
        self._urls: dict[str, URL] = {}
        total, connect = config.total_timeout_seconds, config.connect_timeout_seconds
        self._whole = aiohttp.ClientTimeout(total=total, sock_connect=connect)
        # With aiohttp's bounds each chunk would set and cancel a timer; `Answer` has others.
        self._streamed = aiohttp.ClientTimeout(total=None, sock_connect=connect)

    async def start(self) -> None:
        """Open the connection pool."""
        headers = {"content-type": "application/json", **self.config.headers}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=self.config.max_connections, keepalive_timeout=60),
            auto_decompress=True,
            # Providers of models set no state in cookies, and looking for some costs each request.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Twice this and what one read brings stays below the size of a claim check: what a busy
            # worker finds waiting goes on as it is, not by way of the object store.
            read_bufsize=128 * 1024,
        )

    async def stop(self) -> None:
        """Close all connections, open requests included."""
        if self._session is not None:
            await self._session.close()

    def post(
        self,
        path: str,
        body: bytes,
        *,
        whole: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request and yield the answer once its status is below 400.

        With `whole` the answer comes in one piece after all the work: its first byte has the total
        time, and a timeout is no reason to ask again, since the work may be paid for. Raises
        `UpstreamError` for refusals, timeouts and broken connections, also for those that happen
        while the caller reads. While the provider may not be asked it is not: see `Guard`.
        """
        return self._exchange("POST", path, body, whole=whole, headers=headers)

    def get(self, path: str, query: Mapping[str, str]) -> AbstractAsyncContextManager[Answer]:
        """Ask for a stream that exists; yields and raises as `post` does."""
        return self._exchange("GET", str(URL(path).with_query(query)), None)

    def _url(self, path: str, *, keep: bool) -> URL:
        """Return where a path is; those of a `GET` name responses, and are not worth keeping."""
        url = self._urls.get(path)
        if url is None:
            url = URL(self.config.base_url.rstrip("/") + path)
            if keep:
                self._urls[path] = url
        return url

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        whole: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        if self._session is None:
            raise RuntimeError("the provider's client is not started")
        config = self.config
        url = self._url(path, keep=body is not None)
        if self.guard.limited:
            await self.guard.place()
        with self.guard.call() as call:
            try:
                if whole:
                    answer = await self._session.request(
                        method, url, data=body, headers=headers, timeout=self._whole
                    )
                else:
                    async with asyncio.timeout(config.first_byte_timeout_seconds):
                        answer = await self._session.request(
                            method, url, data=body, headers=headers, timeout=self._streamed
                        )
                try:
                    if answer.status >= 400:
                        async with asyncio.timeout(config.idle_timeout_seconds):
                            raise await _refusal(answer)
                    call.answered()
                    yield Answer(
                        answer,
                        idle_seconds=config.idle_timeout_seconds,
                        total_seconds=config.total_timeout_seconds,
                    )
                finally:
                    # Not `release`: a stream that is left early must not be drained.
                    answer.close() if not answer.content.at_eof() else answer.release()
            except TimeoutError as error:
                raise UpstreamError(
                    f"the provider {config.name} did not answer in time",
                    status=504,
                    retryable=not whole,
                ) from error
            except aiohttp.ClientError as error:
                raise UpstreamError(
                    f"the connection to the provider {config.name} failed: {type(error).__name__}"
                ) from error

    async def read_json(
        self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Post and return the JSON object of the answer; raises `UpstreamError`."""
        async with self.post(path, body, whole=True, headers=headers) as answer:
            whole = await answer.read(most=self._max_response_bytes)
        if whole is None:
            raise UpstreamError("the provider's answer is too large", retryable=False)
        try:
            parsed = orjson.loads(whole)
        except orjson.JSONDecodeError as error:
            raise UpstreamError("the provider's answer is no JSON") from error
        if not isinstance(parsed, dict):
            raise UpstreamError("the provider's answer is no JSON object")
        return parsed


async def _refusal(answer: aiohttp.ClientResponse) -> UpstreamError:
    raw = await answer.content.read(_ERROR_BODY_BYTES)
    return refusal(answer.status, raw, answer.headers.get("retry-after"))


def refusal(answered: int, raw: bytes, retry_after: str | None) -> UpstreamError:
    """Return what an answer of HTTP status 400 and above means; `raw` is its body."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = {}
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {"message": error} if isinstance(error, str) else {}
    message = error.get("message") or f"the provider answered with HTTP status {answered}"
    code = error.get("code")
    exhausted = code == "insufficient_quota"
    if answered in (401, 403):
        # The client's own key was right: what failed is between us and the provider.
        return UpstreamError(
            "the provider refused the credentials of this installation",
            status=502,
            code="provider_authentication",
            retryable=False,
        )
    status = answered if answered in _CLIENT_STATUS else 502
    if answered in (503, 529):
        status = 503
    return UpstreamError(
        str(message),
        status=status,
        code=str(code) if code is not None else None,
        param=error.get("param") if isinstance(error.get("param"), str) else None,
        retryable=answered in _RETRYABLE and not exhausted,
        retry_after_seconds=_seconds(retry_after),
    )


def _seconds(value: str | None) -> float | None:
    """Return a `retry-after` in seconds, whether it is given so or as a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, seconds), _LONGEST_SECONDS) if math.isfinite(seconds) else None
