"""A running upstream and clients for it; everything listens on loopback only."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.upstream import ScriptedUpstream


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=upstream.base_url,
        api_key="key",
        max_retries=0,
        _strict_response_validation=True,
    ) as opened:
        yield opened


@pytest.fixture
async def http(upstream: ScriptedUpstream) -> AsyncIterator[ClientSession]:
    async with ClientSession(upstream.url) as opened:
        yield opened
