"""The real parts that tests share: servers once per run, and a database of its own per test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from infra.local.errors import StackError
from infra.local.parts.model import ModelServer
from infra.local.plan import mcp_programs
from infra.local.process import serving
from infra.local.settings import LocalSettings
from tests.fixtures.databases import empty_database
from tests.fixtures.servers import Servers, choose_servers
from tests.fixtures.storage import ObjectStorage
from tests.upstream import UpstreamProcess

EVERYTHING = "@modelcontextprotocol/server-everything"


TEMPORARY = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give this run a folder of its own for what tests write, a few hundred MB.

    Runs that share one close it to other users at each start, and root's PostgreSQL is another.
    """
    config.stash[TEMPORARY] = Path(mkdtemp(prefix="antiphon-tests-"))
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(config.stash[TEMPORARY])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Remove that folder after a good run; after another say where the logs of all servers are."""
    if exitstatus == pytest.ExitCode.OK:
        rmtree(config.stash[TEMPORARY], ignore_errors=True)
    else:
        folder = config.stash[TEMPORARY]
        terminalreporter.write_line(f"The tests left their files and logs in {folder}.")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """Containers where Docker can have them, else processes; ANTIPHON_TEST_SERVERS decides."""
    return choose_servers(tmp_path_factory.mktemp("servers"))


@pytest.fixture(scope="session")
async def kafka_bootstrap(servers: Servers) -> AsyncIterator[str]:
    """The address of a broker that all tests share; topics and groups are the tests' own."""
    async with servers.kafka() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
async def postgres_server(servers: Servers) -> AsyncIterator[str]:
    """The URL of a database on a server that all tests share, to create others from."""
    async with servers.postgres() as url:
        yield url


@pytest.fixture
async def database_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of an empty database that lives as long as the test."""
    async with empty_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
async def s3(servers: Servers) -> AsyncIterator[ObjectStorage]:
    """An S3 server that all tests share; buckets are the tests' own."""
    async with servers.storage() as storage:
        yield storage


@pytest.fixture(scope="session")
def mcp_everything() -> list[str]:
    """The command of the MCP project's own test server; its one argument is the transport."""
    programs = mcp_programs(LocalSettings.load())
    program = Path(programs["NODE_MODULES"]) / EVERYTHING / "dist" / "index.js"
    if not program.is_file():
        raise StackError(f"{EVERYTHING} is not installed", fix="Run `make setup`")
    return [programs["NODE"], str(program)]


@pytest.fixture(scope="session")
async def model_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The base URL of a real language model, SmolLM2, that speaks Chat Completions."""
    async with serving(ModelServer(tmp_path_factory.mktemp("model"))) as server:
        yield server.base_url


@pytest.fixture(scope="session")
def upstream_process() -> Iterator[UpstreamProcess]:
    """The scripted upstream of the whole run."""
    with UpstreamProcess() as upstream:
        yield upstream


@pytest.fixture
def scripted_upstream(upstream_process: UpstreamProcess) -> UpstreamProcess:
    """The scripted upstream, without memory of earlier tests."""
    upstream_process.reset()
    return upstream_process
