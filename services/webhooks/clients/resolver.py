"""Names to addresses, each checked before anything connects to it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from services.webhooks.domain.addresses import AddressRules
from services.webhooks.errors import AddressRefusedError

Lookup = Callable[..., Sequence[tuple[Any, ...]]]
_THREADS = 32


class CheckedResolver(AbstractResolver):
    """Resolves with the system's resolver and gives the connector the very addresses it checked.

    So a name that changes between the check and the connection changes nothing (DNS rebinding).
    One address that is not allowed refuses the name with all its addresses. Lookups have threads of
    their own: a name server that hangs must not hold up other names. `lookup` is called as
    `socket.getaddrinfo` is.
    """

    def __init__(self, rules: AddressRules, *, lookup: Lookup = socket.getaddrinfo) -> None:
        self._rules = rules
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses; raises `AddressRefusedError`, or `OSError` for an unknown name."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, self._lookup, host, port, family, socket.SOCK_STREAM
        )
        results = [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
            if kind in (socket.AF_INET, socket.AF_INET6)
        ]
        self._rules.check([ip_address(result["host"]) for result in results])
        return results

    def open_socket(self, place: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address that the connector is about to connect to.

        The last word, also on what never was a name. Raises `PermissionError`.
        """
        family, kind, protocol, _, address = place
        try:
            self._rules.check([ip_address(address[0])])
        except (AddressRefusedError, ValueError) as error:
            raise PermissionError(errno.EACCES, str(error)) from error
        return socket.socket(family=family, type=kind, proto=protocol)

    async def close(self) -> None:
        """Let go of the threads; what they still ask for is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
