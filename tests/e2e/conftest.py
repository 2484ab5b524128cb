"""One stack for all end-to-end tests, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, OpenAI

from infra.local.ports import free_port
from infra.local.process import serving
from infra.local.settings import LocalSettings
from tests.e2e.parts import McpOverHttp, mcp_servers_file, providers_file
from tests.e2e.replicas import INTAKES, WORKERS, Replica, close, replica, up
from tests.e2e.stack import Stack, running_stack
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

MAX_BODY_BYTES = 2 * 1024 * 1024
CLIENT_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def e2e_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stack and of what it is told."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
async def mcp_over_http(e2e_home: Path, mcp_everything: list[str]) -> AsyncIterator[str]:
    """The URL of a real MCP server."""
    async with serving(McpOverHttp(e2e_home / "mcp", mcp_everything)) as server:
        yield server.url


@pytest.fixture(scope="session")
def stack(
    e2e_home: Path,
    upstream_process: UpstreamProcess,
    model_server: str,
    mcp_everything: list[str],
    mcp_over_http: str,
) -> Iterator[Stack]:
    """Every server and service of the local stack, before scripted and real models."""
    providers = e2e_home / "providers.toml"
    providers.write_text(providers_file(upstream=upstream_process.base_url, model=model_server))
    servers = e2e_home / "mcp_servers.toml"
    servers.write_text(mcp_servers_file(command=mcp_everything, url=mcp_over_http))
    settings = {
        "ANTIPHON_DOWNLOADS": str(LocalSettings.load().downloads),
        "ANTIPHON_PROVIDERS": str(providers),
        "MCP_BROKER_SERVERS": str(servers),
        "INTAKE_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "INTAKE_ACCEPT_TIMEOUT_SECONDS": "2",
        # What a worker that was killed held is taken up again after so long.
        "WORKER_LEASE_SECONDS": "3",
        "WORKER_SWEEP_SECONDS": "0.5",
        # A silent stream is not silent for long.
        "INTAKE_HEARTBEAT_SECONDS": "1",
        # Endpoints of the tests are on this machine, and tried again at once.
        "WEBHOOKS_ALLOW_HTTP": "true",
        "WEBHOOKS_ALLOW_PRIVATE": "true",
        "WEBHOOKS_FIRST_RETRY_SECONDS": "0.2",
        "WEBHOOKS_POLL_SECONDS": "0.2",
        "WEBHOOKS_TIMEOUT_SECONDS": "2.5",
        "WEBHOOKS_LEASE_SECONDS": "3",
    }
    with running_stack(e2e_home / "stack", free_port(), settings) as running:
        yield running


@pytest.fixture(scope="session")
def replicated_stack(
    tmp_path_factory: pytest.TempPathFactory, upstream_process: UpstreamProcess
) -> Iterator[Stack]:
    """A stack with two intakes and two workers before the scripted upstream."""
    home = tmp_path_factory.mktemp("replicas")
    servers = home / "mcp_servers.toml"
    servers.write_text("servers = []\n")
    settings = {
        "ANTIPHON_DOWNLOADS": str(LocalSettings.load().downloads),
        "UPSTREAM_BASE_URL": upstream_process.base_url,
        "UPSTREAM_API_KEY": "any",
        "MCP_BROKER_SERVERS": str(servers),
        "INTAKE_REPLICAS": "2",
        "WORKER_REPLICAS": "2",
        "INTAKE_ACCEPT_TIMEOUT_SECONDS": "2",
        "WORKER_LEASE_SECONDS": "3",
        "WORKER_SWEEP_SECONDS": "0.5",
        # Streams of tests that are to outlast a drain need not be long.
        "INTAKE_DRAIN_SECONDS": "2",
        "WORKER_DRAIN_SECONDS": "4",
    }
    with running_stack(home / "stack", free_port(), settings) as running:
        yield running


@pytest.fixture
async def replicas(replicated_stack: Stack) -> AsyncIterator[tuple[Replica, Replica]]:
    """Both intakes of that stack, with all replicas up and running."""
    for name in (*INTAKES, *WORKERS):
        await up(replicated_stack, name)
    first, second = (replica(replicated_stack, name) for name in INTAKES)
    yield first, second
    await close(first)
    await close(second)


@pytest.fixture(scope="session")
def topics(stack: Stack) -> Topics:
    """The stack's topics."""
    return Topics(stack.kafka_bootstrap)


@pytest.fixture
def upstream(scripted_upstream: UpstreamProcess) -> UpstreamProcess:
    """The scripted upstream behind the stack, without memory of earlier tests."""
    return scripted_upstream


@pytest.fixture(scope="session")
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    """The official client, strict, without retries that would hide a failure."""
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.admin_key,
        max_retries=0,
        timeout=CLIENT_TIMEOUT_S,
        _strict_response_validation=True,
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def blocking_client(stack: Stack) -> Iterator[OpenAI]:
    """The same client for code that is not async."""
    with OpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.admin_key,
        max_retries=0,
        timeout=CLIENT_TIMEOUT_S,
        _strict_response_validation=True,
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
async def http(stack: Stack) -> AsyncIterator[ClientSession]:
    """Plain HTTP with the administrator's key."""
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    async with ClientSession(stack.url, headers=headers) as session:
        yield session


@pytest.fixture
def mark() -> str:
    """A word that no other test says, to find one's own requests and messages by."""
    return f"mark{uuid4().hex[:12]}"


@pytest.fixture
def requests(upstream: UpstreamProcess, mark: str) -> Callable[[], int]:
    """Counts the requests with this test's mark that the upstream has seen."""
    return lambda: len(upstream.requests(mark))
