"""Starting a service where something is missing: one clear sentence and an exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from services.kit.http import HttpServer

NOBODY = "127.0.0.1:1"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


async def start(service: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a service until it ends; return its exit code and what it told."""
    environment = {**os.environ, "LOG_FORMAT": "console", **variables}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}.main", *arguments),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            _, told = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, told.decode()


async def test_without_kafka_a_service_says_so_and_ends() -> None:
    code, told = await start("intake", KAFKA_BOOTSTRAP=NOBODY, UPSTREAM_BASE_URL="http://x/v1")
    assert code == 1
    assert "Producer can't start" in told
    assert "127.0.0.1" in told
    assert "Traceback" not in told
    assert "Unclosed" not in told


async def test_a_taken_port_is_named(taken_port: int) -> None:
    server = HttpServer(Starlette(), host="127.0.0.1", port=taken_port, drain_seconds=1)
    with pytest.raises(OSError, match=f"can't listen on 127.0.0.1:{taken_port}"):
        await server.start()
    await server.stop()


@pytest.mark.parametrize(("service", "arguments"), [("intake", ["--check-config"]), ("worker", [])])
async def test_without_providers_a_service_names_the_file(
    service: str, arguments: list[str]
) -> None:
    code, told = await start(service, *arguments, ANTIPHON_PROVIDERS="/nowhere/providers.toml")
    assert code == 2
    assert "/nowhere/providers.toml" in told
    assert "Traceback" not in told
