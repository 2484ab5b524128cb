"""Sends one webhook over HTTP: to checked addresses only, without redirects, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import timedelta

import aiohttp
from yarl import URL

from services.webhooks.clients.resolver import CheckedResolver, Lookup
from services.webhooks.domain.addresses import AddressRules
from services.webhooks.errors import AddressRefusedError, UndeliveredError
from services.webhooks.service import Answer

_USER_AGENT = "Antiphon-Webhooks/1.0"
_MAX_HEADER_BYTES = 8_190
_MAX_ANSWER_BYTES = 65_536
_ANSWER_SECONDS = 1.0
_MAX_RETRY_AFTER_DIGITS = 6


class HttpSender:
    """Implements `service.Sender`; a part with a life of its own.

    Every webhook has a connection of its own: its address is checked each time, and no answer can
    be taken for that of another.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        connect_seconds: float,
        total_seconds: float,
        concurrency: int,
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        self._rules = rules
        self._timeout = aiohttp.ClientTimeout(total=total_seconds, sock_connect=connect_seconds)
        self._concurrency = concurrency
        self._resolver = CheckedResolver(rules, lookup=lookup)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency,
                force_close=True,
                use_dns_cache=False,
                family=socket.AF_UNSPEC,
                resolver=self._resolver,
                socket_factory=self._resolver.open_socket,
            ),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    async def stop(self) -> None:
        """Close the session, and leave the name servers alone."""
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Return the status of the answer, whatever its body; raises `UndeliveredError`."""
        if self._session is None:
            raise RuntimeError("the sender is not started")
        try:
            # The rules may have become stricter since the endpoint was made.
            self._rules.check_url(url)
            async with self._session.post(
                URL(url, encoded=True),
                data=body,
                headers={
                    **headers,
                    "content-type": "application/json",
                    "user-agent": _USER_AGENT,
                },
                allow_redirects=False,
            ) as answer:
                result = Answer(answer.status, _retry_after(answer.headers.get("retry-after")))
                await _let_finish(answer)
                return result
        except AddressRefusedError as error:
            raise UndeliveredError(f"the address is not allowed: {error}") from error
        except TimeoutError as error:
            raise UndeliveredError("no answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UndeliveredError(_reason(error)) from error


async def _let_finish(answer: aiohttp.ClientResponse) -> None:
    """Read what comes soon, to let servers and proxies end as usual; it may be without end."""
    left = _MAX_ANSWER_BYTES
    # The status is known: whatever happens now changes nothing.
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            while left > 0 and (chunk := await answer.content.readany()):
                left -= len(chunk)
    answer.close()


def _retry_after(value: str | None) -> timedelta | None:
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return timedelta(seconds=int(value[:_MAX_RETRY_AFTER_DIGITS]))


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"TLS failed: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS failed: {error.os_error}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name can't be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, PermissionError):
            return f"the address is not allowed: {error.os_error.strerror}"
        return f"no connection could be made: {error.os_error.strerror or 'unknown reason'}"
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        return "the connection was closed without an answer"
    return f"the answer is not HTTP ({type(error).__name__})"
