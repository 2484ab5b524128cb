"""API keys: who may do what, from the moment a key is made to the moment it is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from contracts.topics import RESPONSES_COMMANDS
from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
Clients = Callable[[str], Awaitable[AsyncOpenAI]]


async def make_key(http: ClientSession, **fields: Any) -> dict[str, Any]:
    async with http.post("/v1/keys", json={"name": "test", **fields}) as answer:
        assert answer.status == 200, await answer.text()
        key: dict[str, Any] = await answer.json()
        return key


async def revoke(http: ClientSession, key_id: str) -> None:
    async with http.delete(f"/v1/keys/{key_id}") as answer:
        assert answer.status == 200


@pytest.fixture
async def with_key(stack: Stack) -> AsyncIterator[Clients]:
    """Makes clients with keys of their own."""
    async with AsyncExitStack() as opened:

        async def make(key: str) -> AsyncOpenAI:
            client = AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0)
            return await opened.enter_async_context(client)

        yield make


async def test_a_key_works_from_the_moment_it_is_made_until_it_is_revoked(
    http: ClientSession, with_key: Clients, upstream: UpstreamProcess
) -> None:
    key = await make_key(http)
    client = await with_key(key["key"])
    created = await client.responses.create(model=MODEL, input="say: hi")
    assert created.output_text == "hi"

    await revoke(http, key["id"])
    with pytest.raises(AuthenticationError, match="revoked"):
        await client.responses.create(model=MODEL, input="say: hi")
    with pytest.raises(AuthenticationError):
        await client.responses.retrieve(created.id)
    with pytest.raises(AuthenticationError):
        await client.models.list()


async def test_the_secret_of_a_key_is_shown_once(http: ClientSession) -> None:
    key = await make_key(http, name="shown once")
    async with http.get("/v1/keys") as answer:
        listed = {entry["id"]: entry for entry in (await answer.json())["data"]}
    assert listed[key["id"]]["name"] == "shown once"
    assert "key" not in listed[key["id"]]
    assert key["key"].startswith(listed[key["id"]]["prefix"])
    assert key["key"] not in str(listed)


@pytest.mark.parametrize(
    "authorization", [None, "Bearer ", "Bearer sk-antiphon-wrong", "Basic YTpi", "sk-antiphon-bare"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/v1/models"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/artifacts"),
        ("GET", "/v1/costs"),
    ],
)
async def test_without_a_valid_key_nothing_is_told_and_nothing_reaches_a_topic(
    stack: Stack, topics: Topics, method: str, path: str, authorization: str | None
) -> None:
    before = await topics.ends(RESPONSES_COMMANDS.name)
    headers = {} if authorization is None else {"authorization": authorization}
    body = {"model": MODEL, "input": "hi"} if method == "POST" else None
    async with (
        ClientSession(stack.url, headers=headers) as stranger,
        stranger.request(method, path, json=body) as answer,
    ):
        assert answer.status == 401
        error = (await answer.json())["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert await topics.ends(RESPONSES_COMMANDS.name) == before


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/key_1")]
)
async def test_only_administrators_manage_keys(
    stack: Stack, http: ClientSession, method: str, path: str
) -> None:
    key = await make_key(http)
    headers = {"authorization": f"Bearer {key['key']}"}
    async with (
        ClientSession(stack.url, headers=headers) as ordinary,
        ordinary.request(method, path, json={"name": "mine"}) as answer,
    ):
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "missing_scope"


async def test_projects_do_not_see_each_other_s_responses(
    http: ClientSession, with_key: Clients, upstream: UpstreamProcess
) -> None:
    ours = await with_key((await make_key(http, project="ours"))["key"])
    theirs = await with_key((await make_key(http, project="theirs"))["key"])
    created = await ours.responses.create(model=MODEL, input="say: secret")

    refused = await asyncio.gather(
        theirs.responses.retrieve(created.id),
        theirs.responses.delete(created.id),
        theirs.responses.create(model=MODEL, input="go on", previous_response_id=created.id),
        return_exceptions=True,
    )
    assert [type(error) for error in refused] == [NotFoundError, NotFoundError, BadRequestError]
    assert (await ours.responses.retrieve(created.id)).output_text == "secret"


async def test_an_expired_key_is_no_key(http: ClientSession, with_key: Clients) -> None:
    key = await make_key(http, expires_at=1_700_000_000)
    client = await with_key(key["key"])
    with pytest.raises(AuthenticationError, match="expired"):
        await client.models.list()
