"""Cheap questions to a local port, for readiness checks that run many times a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from infra.local.ports import HOST

TIMEOUT_S = 1.0


async def http_status(port: int | None, path: str) -> int | None:
    """Give the status code that a GET is answered with, None when nobody answers in a second."""
    if port is None:
        return None
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return None
