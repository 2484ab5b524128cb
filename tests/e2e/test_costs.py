"""What responses cost: told as facts, kept in the ledger, reported through intake."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.topics import COSTS_RECORDED
from tests.e2e.parts import DIALECTS
from tests.e2e.topics import Topics
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess

PRICED, UNPRICED = DIALECTS["responses"], DIALECTS["chat"]
# Dollars for a million tokens of the priced model, gpt-4o-mini.
INPUT, CACHED, OUTPUT = Decimal("0.15"), Decimal("0.075"), Decimal("0.60")


async def report(http: ClientSession, mark: str, group_by: str = "chat") -> dict[str, Any] | None:
    """The costs of the chat that `mark` names, None before there are any."""
    async with http.get("/v1/costs", params={"group_by": group_by, "chat": mark}) as answer:
        assert answer.status == 200
        body: dict[str, Any] = await answer.json()
    return body if body["data"] else None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_costs_what_its_tokens_do(
    client: AsyncOpenAI,
    http: ClientSession,
    topics: Topics,
    upstream: UpstreamProcess,
    mark: str,
    stream: bool,
) -> None:
    begin = await topics.ends(COSTS_RECORDED.name)
    text = 'say: hi ; usage: {"input_tokens": 3000, "cached_tokens": 1000, "output_tokens": 500}'
    request: dict[str, Any] = {"model": PRICED, "input": text, "metadata": {"chat_id": mark}}
    if stream:
        async for event in await client.responses.create(**request, stream=True):
            last = event
        assert last.type == "response.completed"
        response_id = last.response.id
    else:
        response_id = (await client.responses.create(**request)).id

    lines = await topics.facts(
        COSTS_RECORDED.name, begin, lambda fact: fact.response_id == response_id, count=3
    )
    million = Decimal(1_000_000)
    assert {line.unit: line.cost_usd for line in lines} == {
        "input_tokens": 2000 * INPUT / million,
        "cached_input_tokens": 1000 * CACHED / million,
        "output_tokens": 500 * OUTPUT / million,
    }
    assert {line.principal.chat for line in lines} == {mark}

    found_report = await found(lambda: report(http, mark), "the ledger has the lines")
    assert Decimal(found_report["total"]["cost_usd"]) == sum(line.cost_usd for line in lines)
    assert found_report["total"]["unpriced_lines"] == 0


async def test_a_model_without_a_price_is_never_free(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    response = await client.responses.create(
        model=UNPRICED, input="say: priceless", metadata={"chat_id": mark}
    )
    total = (await found(lambda: report(http, mark), "the ledger has the lines"))["total"]
    assert (total["cost_usd"], total["unpriced_lines"]) == (None, 2)
    async with http.get("/v1/costs/lines", params={"response_id": response.id}) as answer:
        lines = (await answer.json())["data"]
    assert all(line["cost_usd"] is None and line["unpriced_reason"] for line in lines)


async def test_costs_can_be_told_apart_by_model_key_chat_and_day(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    await client.responses.create(model=PRICED, input="say: hi", metadata={"chat_id": mark})
    await found(lambda: report(http, mark), "the ledger has the lines")
    grouped = {}
    for name in ("model", "key", "chat", "day"):
        body = await report(http, mark, group_by=name)
        assert body is not None
        [group] = body["data"]
        grouped[name] = group["group"][name]
    assert grouped["model"] == PRICED
    assert grouped["chat"] == mark
    assert grouped["key"] == "key_admin"
    assert len(grouped["day"]) == len("2026-01-31")


async def test_calls_of_tools_are_in_the_ledger_too(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    await client.responses.create(
        model=PRICED,
        input='call: echo {"message": "hi"}',
        tools=[{"type": "mcp", "server_label": "everything", "require_approval": "never"}],
        metadata={"chat_id": mark},
    )

    async def with_tool() -> dict[str, Any] | None:
        body = await report(http, mark, group_by="tool")
        return body if body and len(body["data"]) == 2 else None

    body = await found(with_tool, "the ledger has the call")
    assert {group["group"]["tool"] for group in body["data"]} == {None, "everything/echo"}
    assert body["total"]["quantities"]["tool_calls"] == 1
