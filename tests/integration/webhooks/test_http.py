"""The HTTP edge over a real socket and the real PostgreSQL, as intake asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import standardwebhooks
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from services.kit.clock import SystemClock
from services.webhooks.api import ERRORS, PREFIXES, Api
from services.webhooks.domain.addresses import AddressRules
from services.webhooks.domain.events import EVENT_TYPES
from services.webhooks.service import Registry
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from tests.integration.serving import address, as_intake, served
from tests.integration.webhooks.parts import HERE, RULE, SECRETS, ended, event, sending
from tests.webhook_receiver import Receiver

TOKEN = "a-shared-secret"
MOST = 3
URL = "https://hooks.example/1"
pytestmark = pytest.mark.usefixtures("engine")


class Client:
    """Speaks as intake does, on behalf of a key of a project."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = f"{base}/v1/webhook_endpoints"

    async def ask(
        self,
        method: str,
        path: str = "",
        body: Any = None,
        *,
        scopes: str = "api admin",
        token: str = TOKEN,
        data: bytes | None = None,
    ) -> tuple[int, Any]:
        headers = as_intake(token, scopes=scopes)
        async with self._session.request(
            method, self._base + path, headers=headers, json=body, data=data
        ) as answer:
            return answer.status, await answer.json()

    async def create(self, **fields: Any) -> dict[str, Any]:
        status, made = await self.ask("POST", "", {"url": URL, **fields})
        assert status == 200, made
        assert isinstance(made, dict)
        return made

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        """Return status, code and parameter of an error, which has the API's shape."""
        status, answer = await self.ask(method, path, body)
        error = answer["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["param"] or "").split("[")[0] in error["message"]
        return status, error["code"], error["param"]


@pytest.fixture
async def client(endpoints: PostgresEndpoints) -> AsyncIterator[Client]:
    rules = AddressRules(private=True, http=True)
    async with sending(HERE) as sender:
        registry = Registry(endpoints, SECRETS, sender, rules=rules, most=MOST)
        api = Api(registry, SystemClock(), token=TOKEN, wake=lambda: None)
        app = Starlette(routes=api.routes(), exception_handlers=ERRORS)
        async with served(app) as server, aiohttp.ClientSession() as session:
            yield Client(session, address(server))


async def test_an_endpoint_is_made_with_defaults_and_its_secret_is_shown_once(
    client: Client, engine: AsyncEngine
) -> None:
    made = await client.create()
    secret = made.pop("signing_secret")
    assert secret.startswith("whsec_")
    assert made["event_types"] == list(EVENT_TYPES)
    assert (made["responses"], made["enabled"], made["project"]) == ("background", True, "research")
    assert made["signing_secret_hint"].endswith(secret[-4:])
    assert await client.ask("GET", f"/{made['id']}") == (200, made)
    async with engine.connect() as connection:
        dump = str((await connection.exec_driver_sql("SELECT * FROM webhooks.endpoints")).all())
    assert secret not in dump
    assert secret.removeprefix("whsec_") not in dump


async def test_endpoints_are_listed_in_pages_the_newest_first(client: Client) -> None:
    made = [(await client.create(name=f"hook {number}"))["id"] for number in range(3)]
    status, page = await client.ask("GET", "?limit=2")
    assert status == 200
    assert [one["id"] for one in page["data"]] == made[:0:-1]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, made[2], made[1])
    _, rest = await client.ask("GET", f"?limit=2&after={page['last_id']}")
    assert [one["id"] for one in rest["data"]] == made[:1]
    assert not rest["has_more"]


async def test_an_endpoint_is_changed_in_what_is_named_and_nothing_else(client: Client) -> None:
    made = await client.create(name="before")
    del made["signing_secret"]
    path = f"/{made['id']}"
    assert await client.ask("POST", path, {"name": "before"}) == (200, made)
    _, changed = await client.ask(
        "POST", path, {"event_types": ["response.failed", "response.failed"], "responses": "all"}
    )
    assert changed == made | {
        "event_types": ["response.failed"],
        "responses": "all",
        "updated_at": changed["updated_at"],
    }
    _, off = await client.ask("POST", path, {"enabled": False})
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by hand")
    _, on = await client.ask("POST", path, {"enabled": True})
    assert (on["enabled"], on["disabled_reason"]) == (True, None)
    assert await client.ask("DELETE", path) == (
        200,
        {"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": True},
    )
    assert (await client.refused("DELETE", path))[0] == 404


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "url"),
        ({"url": 1}, "invalid_type", "url"),
        ({"url": ""}, "invalid_value", "url"),
        ({"url": "ftp://hooks.example"}, "invalid_url", "url"),
        ({"url": "https://user@hooks.example"}, "invalid_url", "url"),
        ({"url": "https://224.0.0.1/"}, "invalid_url", "url"),
        ({"url": URL, "name": "n" * 201}, "invalid_value", "name"),
        ({"url": URL, "name": "a\0b"}, "invalid_value", "name"),
        ({"url": URL, "event_types": "response.failed"}, "invalid_type", "event_types"),
        ({"url": URL, "event_types": []}, "invalid_value", "event_types"),
        ({"url": URL, "event_types": ["batch.completed"]}, "invalid_value", "event_types[0]"),
        ({"url": URL, "event_types": ["response.failed", None]}, "invalid_type", "event_types[1]"),
        ({"url": URL, "responses": "some"}, "invalid_value", "responses"),
        ({"url": URL, "enabled": "yes"}, "invalid_type", "enabled"),
        ({"url": URL, "secret": "mine"}, "unknown_parameter", "secret"),
        (["url"], "invalid_type", "body"),
    ],
)
async def test_a_bad_body_is_refused_with_the_name_of_what_is_bad(
    client: Client, body: Any, code: str, param: str
) -> None:
    assert await client.refused("POST", "", body) == (400, code, param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=0000000019999", "limit"),
        ("?limit=two", "limit"),
        ("?after=we_none", "after"),
        ("?after=%00", "after"),
        ("?project=a/b", "project"),
        ("?order=asc", "order"),
    ],
)
async def test_a_bad_query_is_refused_with_the_name_of_what_is_bad(
    client: Client, query: str, param: str
) -> None:
    status, _, named = await client.refused("GET", query)
    assert (status, named) == (400, param)


async def test_bodies_that_are_no_json_or_too_long_are_refused(client: Client) -> None:
    assert (await client.ask("POST", "", data=b"{"))[1]["error"]["code"] == "invalid_json"
    status, answer = await client.ask("POST", "", data=b" " * 70_000)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


async def test_a_project_can_not_have_endpoints_without_end(client: Client) -> None:
    for _ in range(MOST):
        await client.create()
    status, code, _ = await client.refused("POST", "", {"url": URL})
    assert (status, code) == (400, "too_many_webhook_endpoints")
    status, _ = await client.ask("POST", "?project=other", {"url": URL})
    assert status == 200


async def test_endpoints_of_other_projects_are_not_there(client: Client) -> None:
    _, made = await client.ask("POST", "?project=other", {"url": URL})
    path = f"/{made['id']}"
    for method, below in (
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("POST", "/rotate_secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/wh_1/retry"),
    ):
        status, code, _ = await client.refused(method, path + below)
        assert (status, code) == (404, "webhook_endpoint_not_found"), (method, below)
    assert (await client.ask("GET"))[1]["data"] == []
    status, found = await client.ask("GET", path + "?project=other")
    assert (status, found["project"]) == (200, "other")


async def test_every_route_is_for_administrators_whom_intake_vouches_for(client: Client) -> None:
    api = Api(registry=None, clock=SystemClock(), token="", wake=lambda: None)  # type: ignore[arg-type] # never called
    paths = [(route.path, route.methods) for route in api.routes()]  # type: ignore[attr-defined] # all are Route
    tried = 0
    for path, methods in paths:
        if not path.startswith(PREFIXES[0]):
            continue
        below = path.removeprefix(PREFIXES[0]).replace("{endpoint}", "x").replace("{delivery}", "y")
        for method in methods - {"HEAD"}:
            tried += 1
            status, answer = await client.ask(method, below, scopes="api")
            assert (status, answer["error"]["code"]) == (403, "missing_scope"), below
            status, _ = await client.ask(method, below, token="guessed")
            assert status == 401
    assert tried == 9


async def test_a_test_event_is_sent_at_once_and_its_status_told(
    client: Client, receiver: Receiver
) -> None:
    made = await client.create(url=receiver.url("hook"), event_types=["response.failed"])
    receiver.answer("hook", 500)
    status, result = await client.ask("POST", f"/{made['id']}/test")
    assert status == 200
    assert result == {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": made["id"],
        "event_type": "response.failed",
        "status_code": 500,
        "success": True,
    }
    await client.ask("POST", f"/{made['id']}/test", {"event_type": "response.completed"})
    told = receiver.at("hook")[1]
    sample = standardwebhooks.Webhook(made["signing_secret"]).verify(told.body, told.headers)
    assert sample["type"] == "response.completed"
    assert (await client.refused("POST", f"/{made['id']}/test", {"event_type": "no"}))[2]
    assert (await client.ask("GET", f"/{made['id']}/deliveries"))[1]["data"] == []


async def test_a_test_event_that_does_not_arrive_says_why(client: Client) -> None:
    made = await client.create(url="http://nowhere.invalid/")
    status, answer = await client.ask("POST", f"/{made['id']}/test")
    assert (status, answer["error"]["code"]) == (400, "webhook_undelivered")
    assert "can't be resolved" in answer["error"]["message"]


async def test_a_rotated_secret_signs_alone_unless_the_old_one_is_kept(
    client: Client, receiver: Receiver
) -> None:
    made = await client.create(url=receiver.url("hook"))
    path = f"/{made['id']}"
    _, second = await client.ask("POST", f"{path}/rotate_secret")
    await client.ask("POST", f"{path}/test")
    told = receiver.at("hook")[-1]
    standardwebhooks.Webhook(second["signing_secret"]).verify(told.body, told.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(made["signing_secret"]).verify(told.body, told.headers)

    keep = {"keep_old_secret_active_for_24_hours": True}
    _, third = await client.ask("POST", f"{path}/rotate_secret", keep)
    await client.ask("POST", f"{path}/test")
    told = receiver.at("hook")[-1]
    for secret in (second["signing_secret"], third["signing_secret"]):
        standardwebhooks.Webhook(secret).verify(told.body, told.headers)


async def test_deliveries_are_listed_with_their_attempts_and_can_be_sent_again(
    client: Client, queue: PostgresDeliveries
) -> None:
    made = await client.create()
    now = SystemClock().now()
    await queue.accept([event(f"resp_{n}", occurred_at=now) for n in range(3)], at=now)
    claims = {one.response_id: one for one in await queue.claim(9, now=now, lease=RULE.longest)}
    await queue.record(
        [
            ended(claims["resp_0"], 204, now),
            ended(claims["resp_1"], 500, now, retry_at=now + RULE.longest),
            ended(claims["resp_2"], None, now),
        ],
        rule=RULE,
    )
    path = f"/{made['id']}/deliveries"
    for number, state in enumerate(("delivered", "pending", "failed")):
        _, page = await client.ask("GET", f"{path}?status={state}")
        assert [one["response_id"] for one in page["data"]] == [f"resp_{number}"]
    _, page = await client.ask("GET", f"{path}?response_id=resp_1")
    [waiting] = page["data"]
    assert waiting["next_attempt_at"] == int((now + RULE.longest).timestamp())
    assert waiting["last_attempts"] == [
        {"at": int(now.timestamp()), "status_code": 500, "error": None, "latency_ms": 7}
    ]
    _, first = await client.ask("GET", f"{path}?limit=2")
    _, second = await client.ask("GET", f"{path}?limit=2&after={first['last_id']}")
    assert first["has_more"]
    assert {one["id"] for one in first["data"] + second["data"]} == {
        claim.delivery_id for claim in claims.values()
    }
    assert (await client.refused("GET", f"{path}?status=lost"))[2] == "status"

    failed = claims["resp_2"].delivery_id
    status, again = await client.ask("POST", f"{path}/{failed}/retry")
    assert (status, again["status"], again["attempts"]) == (200, "pending", 0)
    [claim] = await queue.claim(9, now=SystemClock().now(), lease=RULE.longest)
    assert claim.delivery_id == failed
    status, code, _ = await client.refused("POST", f"{path}/wh_none/retry")
    assert (status, code) == (404, "webhook_delivery_not_found")
