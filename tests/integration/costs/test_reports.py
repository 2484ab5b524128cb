"""Reports over HTTP from the real PostgreSQL: groups, narrowing, pages, errors, isolation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.principal import Principal
from services.costs.api import create_app
from services.costs.domain.charges import charge_response, charge_tool_result
from services.costs.store import LedgerStore
from services.kit.clock import SystemClock
from services.kit.database import create_engine
from tests.integration.serving import address, as_intake, served
from tests.unit.costs.facts import BOOK, FINISHED, finished, response, tool_result, usage

TOKEN = "the-shared-secret"


class Client:
    """Asks as intake does, on behalf of a key of a project."""

    def __init__(self, http: aiohttp.ClientSession, base: str, project: str) -> None:
        self._http = http
        self._base = base
        self._project = project

    async def get(
        self, path: str, *, scopes: str = "api", token: str = TOKEN, **params: Any
    ) -> tuple[int, Any]:
        headers = as_intake(token, project=self._project, scopes=scopes, key_id="key_a")
        async with self._http.get(self._base + path, params=params, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def asking(ledger: LedgerStore, project: str) -> AsyncIterator[Client]:
    app = create_app(ledger, token=TOKEN, health=[])
    async with served(app) as server, aiohttp.ClientSession() as http:
        yield Client(http, address(server), project)


@pytest.fixture
async def client(ledger: LedgerStore, owner: Principal) -> AsyncIterator[Client]:
    async with asking(ledger, owner.project) as client:
        yield client


@pytest.fixture
async def spent(ledger: LedgerStore, owner: Principal) -> str:
    """Fill the ledger: two models on two days, two chats, a tool; returns the first response."""
    later = FINISHED + timedelta(days=1)
    other_chat = owner.model_copy(update={"key_id": "key_b", "chat": None})
    first = f"resp_{owner.project}_1"
    facts = [
        finished(response_id=first, principal=owner),
        finished(response_id=f"{first}2", principal=other_chat, model="gpt-5", finished_at=later),
        finished(
            response_id=f"{first}3",
            principal=owner,
            model="smollm2-135m",
            provider="local",
            estimated_usage=True,
        ),
    ]
    charges = [charge_response(fact, response(usage=usage(1000, 100)), BOOK) for fact in facts]
    call = tool_result(response_id=first, principal=owner)
    await ledger.record([*charges, charge_tool_result(call, FINISHED, BOOK)])
    return first


async def test_costs_by_model_are_exact_and_say_what_is_unpriced(
    client: Client, spent: str
) -> None:
    status, report = await client.get("/v1/costs", group_by="model")
    assert status == 200
    assert report == {
        "object": "list",
        "data": [
            {
                "object": "costs.group",
                "group": {"model": "gpt-5"},
                "cost_usd": "0.00225",
                "unpriced_lines": 0,
                "estimated_lines": 0,
                "quantities": {"input_tokens": 1000, "output_tokens": 100},
            },
            {
                "object": "costs.group",
                "group": {"model": "gpt-4o-mini"},
                "cost_usd": "0.00021",
                "unpriced_lines": 0,
                "estimated_lines": 0,
                "quantities": {"input_tokens": 1000, "output_tokens": 100},
            },
            {
                "object": "costs.group",
                "group": {"model": "smollm2-135m"},
                "cost_usd": None,
                "unpriced_lines": 2,
                "estimated_lines": 2,
                "quantities": {"input_tokens": 1000, "output_tokens": 100},
            },
            {
                "object": "costs.group",
                "group": {"model": None},
                "cost_usd": None,
                "unpriced_lines": 1,
                "estimated_lines": 0,
                "quantities": {"tool_calls": 1},
            },
        ],
        "total": {
            "cost_usd": "0.00246",
            "unpriced_lines": 3,
            "estimated_lines": 2,
            "quantities": {"input_tokens": 3000, "output_tokens": 300, "tool_calls": 1},
        },
        "has_more": False,
        "next_page": None,
    }


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("key", [{"key": "key_b"}, {"key": "key_a"}]),
        ("chat", [{"chat": None}, {"chat": "chat_1"}]),
        ("day", [{"day": "2026-11-20"}, {"day": "2026-11-21"}]),
        ("user", [{"user": "ada"}]),
        ("provider", [{"provider": "openai"}, {"provider": "local"}, {"provider": "mcp_broker"}]),
        ("tool", [{"tool": None}, {"tool": "everything/echo"}]),
        (
            "day,key",
            [{"day": "2026-11-20", "key": "key_a"}, {"day": "2026-11-21", "key": "key_b"}],
        ),
    ],
)
async def test_costs_can_be_grouped_by(
    client: Client, spent: str, group_by: str, groups: list[dict[str, Any]]
) -> None:
    _, report = await client.get("/v1/costs", group_by=group_by)
    assert [group["group"] for group in report["data"]] == groups
    assert report["total"]["cost_usd"] == "0.00246"


@pytest.mark.parametrize(
    ("narrowing", "cost"),
    [
        ({"start": "2026-11-21"}, "0.00225"),
        ({"end": "2026-11-21T00:00:00Z"}, "0.00021"),
        ({"start": "2026-11-20", "end": "2026-11-22"}, "0.00246"),
        ({"start": "2026-11-22"}, "0"),
        ({"model": "gpt-5"}, "0.00225"),
        ({"chat": "chat_1", "key": "key_a"}, "0.00021"),
        ({"tool": "everything/echo"}, None),
        ({"model": "smollm2-135m"}, None),
    ],
)
async def test_costs_can_be_narrowed(
    client: Client, spent: str, narrowing: dict[str, str], cost: str | None
) -> None:
    _, report = await client.get("/v1/costs", **narrowing)
    assert report["total"]["cost_usd"] == cost


async def test_the_costs_of_one_response_include_its_tools(client: Client, spent: str) -> None:
    _, report = await client.get("/v1/costs", response_id=spent)
    assert report["total"] == {
        "cost_usd": "0.00021",
        "unpriced_lines": 1,
        "estimated_lines": 0,
        "quantities": {"input_tokens": 1000, "output_tokens": 100, "tool_calls": 1},
    }


async def test_reports_come_in_pages(client: Client, spent: str) -> None:
    models: list[str] = []
    page: str | None = "0"
    while page is not None:
        _, report = await client.get("/v1/costs", limit=3, page=page)
        models += [group["group"]["model"] for group in report["data"]]
        assert report["total"]["cost_usd"] == "0.00246"
        assert report["has_more"] == (report["next_page"] is not None)
        page = report["next_page"]
    assert models == ["gpt-5", "gpt-4o-mini", "smollm2-135m", None]


async def test_a_line_shows_how_it_came_about(client: Client, spent: str, owner: Principal) -> None:
    status, page = await client.get("/v1/costs/lines", response_id=spent, limit=1)
    assert status == 200
    assert (page["first_id"], page["last_id"]) == (f"{spent}:call_1", f"{spent}:call_1")
    assert page["has_more"]
    _, page = await client.get("/v1/costs/lines", response_id=spent, after=page["last_id"], limit=1)
    [line] = page["data"]
    source = line.pop("price_source")
    assert source.startswith("genai-prices ")
    assert source.endswith(": openai/gpt-4o-mini")
    assert line == {
        "object": "costs.line",
        "id": f"{spent}:input_tokens",
        "response_id": spent,
        "project": owner.project,
        "key": "key_a",
        "user": "ada",
        "chat": "chat_1",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "tool": None,
        "unit": "input_tokens",
        "quantity": 1000,
        "unit_price_usd": "0.00000015",
        "cost_usd": "0.00015",
        "unpriced_reason": None,
        "service_tier": None,
        "estimated": False,
        "occurred_at": "2026-11-20T12:00:03+00:00",
    }


async def test_a_project_sees_its_own_costs_and_an_admin_those_of_all(
    client: Client, spent: str, owner: Principal
) -> None:
    status, refusal = await client.get("/v1/costs", project="proj_other")
    assert status == 403
    assert refusal["error"]["param"] == "project"
    _, nothing = await client.get("/v1/costs", scopes="api admin", project="proj_other")
    assert nothing["data"] == []
    assert nothing["total"]["cost_usd"] == "0"
    _, everything = await client.get(
        "/v1/costs", scopes="api admin", group_by="project", limit=1000
    )
    costs = {group["group"]["project"]: group["cost_usd"] for group in everything["data"]}
    assert costs[owner.project] == "0.00246"


@pytest.mark.parametrize(
    ("path", "params", "param"),
    [
        ("/v1/costs", {"group_by": "colour"}, "group_by"),
        ("/v1/costs", {"start": "soon"}, "start"),
        ("/v1/costs", {"chat": "a\0"}, "chat"),
        ("/v1/costs", {"limit": "many"}, "limit"),
        ("/v1/costs/lines", {}, "response_id"),
        ("/v1/costs/lines", {"response_id": "resp_1", "page": "1"}, "page"),
    ],
)
async def test_a_wrong_parameter_is_refused_in_the_shape_of_the_api(
    client: Client, path: str, params: dict[str, str], param: str
) -> None:
    status, refusal = await client.get(path, **params)
    assert status == 400
    assert refusal["error"]["type"] == "invalid_request_error"
    assert refusal["error"]["param"] == param
    assert refusal["error"]["code"] == "invalid_parameter"
    assert refusal["error"]["message"]


@pytest.mark.parametrize("token", ["", "wrong", "wröng"])
async def test_only_services_of_the_installation_may_ask(client: Client, token: str) -> None:
    for path in ("/v1/costs", "/v1/costs/lines"):
        status, refusal = await client.get(path, token=token)
        assert status == 401
        assert refusal["error"]["message"]


async def test_an_unknown_address_is_refused_in_the_shape_of_the_api(client: Client) -> None:
    status, refusal = await client.get("/v1/costs/nothing")
    assert status == 404
    assert refusal["error"]["type"] == "invalid_request_error"


async def test_a_database_that_is_away_is_an_outage_not_a_crash(engine: AsyncEngine) -> None:
    away = create_engine("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1, name="away")
    async with asking(LedgerStore(away, SystemClock()), "proj_a") as client:
        status, refusal = await client.get("/v1/costs")
    await away.dispose()
    assert status == 503
    assert refusal["error"]["type"] == "server_error"
