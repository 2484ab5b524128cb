"""A running upstream and clients for it; everything listens on loopback only.

Server and openai client are made once, since they are slow to make; the server is reset per test.
"""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.upstream import ScriptedUpstream


@pytest.fixture(scope="session")
async def running_upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="session")
async def client(running_upstream: ScriptedUpstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=running_upstream.base_url,
        api_key="key",
        max_retries=0,
        _strict_response_validation=True,
    ) as opened:
        yield opened


@pytest.fixture(autouse=True)
def upstream(running_upstream: ScriptedUpstream) -> ScriptedUpstream:
    running_upstream.reset()
    return running_upstream


@pytest.fixture
async def http(upstream: ScriptedUpstream) -> AsyncIterator[ClientSession]:
    async with ClientSession(upstream.url) as opened:
        yield opened
