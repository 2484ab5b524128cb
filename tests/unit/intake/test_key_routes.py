"""The routes of keys: what administrators send, and the code of every error."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from services.intake.admission.keys import ApiKeys
from services.intake.api.keys import KeyRoutes
from tests.unit.intake.apps import ADMIN, Exchange, HandClock, Intake, Sent
from tests.unit.kit.records import Message


class Echo(Sent):
    """Gives every message back to the keys, as the topic would."""

    keys: ApiKeys

    async def send(self, topic: str, value: bytes | None, **options: object) -> None:
        await super().send(topic, value)
        asyncio.get_running_loop().call_soon(self.keys._learn, Message(value))


class Keys:
    """The routes of keys over an application in memory."""

    def __init__(self) -> None:
        echo = Echo()
        keys = echo.keys = ApiKeys(echo, HandClock(), admin_secret=ADMIN, most=3)
        self.echo = echo
        self.intake = Intake(routes=KeyRoutes(keys, HandClock(), max_grace_seconds=100).routes())

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = ADMIN
    ) -> tuple[int, dict[str, Any]]:
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        exchange = Exchange(self.intake, raw, method=method, path=path, key=key)
        await exchange.run()
        return exchange.status, orjson.loads(exchange.body)

    async def made(self, **fields: Any) -> dict[str, Any]:
        status, key = await self.ask("POST", "/v1/keys", {"name": "mine", **fields})
        assert status == 200, key
        return key


@pytest.fixture
def keys() -> Keys:
    return Keys()


async def test_a_key_is_told_as_it_was_made_and_its_secret_once(keys: Keys) -> None:
    fields = {
        "project": "shop",
        "user": "ada",
        "scopes": ["api", "admin"],
        "expires_at": 1_900_000_000,
        "allowed_models": ["gpt-5*", "mini"],
        "requests_per_minute": 5,
        "tokens_per_minute": 1000,
    }
    made = await keys.made(**fields)
    assert made.pop("key").startswith(made["prefix"])
    assert {name: made[name] for name in fields} == fields
    assert (made["object"], made["status"]) == ("api_key", "active")
    assert await keys.ask("GET", f"/v1/keys/{made['id']}") == (200, made)
    status, listed = await keys.ask("GET", "/v1/keys")
    assert (status, listed["data"], listed["has_more"]) == (200, [made], False)


async def test_an_update_changes_what_it_names_and_null_takes_a_bound_away(keys: Keys) -> None:
    made = await keys.made(requests_per_minute=5, tokens_per_minute=7)
    path = f"/v1/keys/{made['id']}"
    status, changed = await keys.ask("POST", path, {"tokens_per_minute": None, "name": "new"})
    assert status == 200
    assert (changed["name"], changed["requests_per_minute"]) == ("new", 5)
    assert changed["tokens_per_minute"] is None
    assert await keys.ask("POST", path, {}) == (200, changed)


async def test_a_rotated_key_is_told_until_when_its_old_secret_is_good(keys: Keys) -> None:
    made = await keys.made()
    path = f"/v1/keys/{made['id']}"
    status, rotated = await keys.ask("POST", f"{path}/rotate", {"grace_seconds": 60})
    assert status == 200
    assert rotated["key"] != made["key"]
    assert rotated["replaced_key_expires_at"] == rotated["rotated_at"] + 60
    assert (await keys.ask("GET", path, key=made["key"]))[0] == 403
    status, again = await keys.ask("POST", f"{path}/rotate")
    assert (status, again["replaced_key_expires_at"]) == (200, again["rotated_at"])
    assert (await keys.ask("GET", path, key=rotated["key"]))[0] == 401
    assert (await keys.ask("GET", path, key=again["key"]))[0] == 403


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        ([], "invalid_type", None),
        ({}, "missing_required_parameter", "name"),
        ({"name": None}, "invalid_type", "name"),
        ({"name": ""}, "invalid_value", "name"),
        ({"name": "x" * 201}, "invalid_value", "name"),
        ({"name": "a", "project": "no spaces"}, "invalid_value", "project"),
        ({"name": "a", "user": "nul\0"}, "invalid_value", "user"),
        ({"name": "a", "scopes": []}, "invalid_value", "scopes"),
        ({"name": "a", "scopes": ["api", "api"]}, "invalid_value", "scopes"),
        ({"name": "a", "scopes": ["root"]}, "invalid_value", "scopes[0]"),
        ({"name": "a", "expires_at": -1}, "invalid_value", "expires_at"),
        ({"name": "a", "expires_at": 10**15}, "invalid_value", "expires_at"),
        ({"name": "a", "expires_at": "2027"}, "invalid_type", "expires_at"),
        ({"name": "a", "allowed_models": []}, "invalid_value", "allowed_models"),
        ({"name": "a", "allowed_models": ["a*b"]}, "invalid_value", "allowed_models[0]"),
        ({"name": "a", "requests_per_minute": 0}, "invalid_value", "requests_per_minute"),
        ({"name": "a", "tokens_per_minute": 1.5}, "invalid_type", "tokens_per_minute"),
        ({"name": "a", "tokens_per_minute": True}, "invalid_type", "tokens_per_minute"),
        ({"name": "a", "tokens_per_minute": 10**10}, "invalid_value", "tokens_per_minute"),
        ({"name": "a", "secret": "mine"}, "unknown_parameter", "secret"),
        ({"name": "x" * 70_000}, "request_too_large", None),
    ],
)
async def test_a_wrong_body_is_refused_by_name(
    keys: Keys, body: Any, code: str, param: str | None
) -> None:
    status, answer = await keys.ask("POST", "/v1/keys", body)
    assert status == (413 if code == "request_too_large" else 400)
    assert (answer["error"]["code"], answer["error"]["param"]) == (code, param)
    assert keys.echo.messages == []


async def test_every_other_error_has_a_code(keys: Keys) -> None:
    made = await keys.made()
    path = f"/v1/keys/{made['id']}"
    cases: list[tuple[int, str, str, str, Any]] = [
        (404, "key_not_found", "GET", "/v1/keys/key_none", None),
        (404, "key_not_found", "POST", "/v1/keys/key_none", {"name": "new"}),
        (404, "key_not_found", "POST", "/v1/keys/key_none/rotate", None),
        (404, "key_not_found", "DELETE", "/v1/keys/key_none", None),
        (400, "invalid_value", "POST", f"{path}/rotate", {"grace_seconds": 101}),
        (400, "invalid_value", "POST", f"{path}/rotate", {"grace_seconds": -1}),
        (400, "unknown_parameter", "POST", path, {"project": "other"}),
        (405, "method_not_allowed", "PUT", "/v1/keys", {}),
        (404, "unknown_url", "GET", path + "/other", None),
    ]
    for status, code, method, url, body in cases:
        found, answer = await keys.ask(method, url, body)
        assert (found, answer["error"]["code"]) == (status, code), url
    for key, status, code in ((None, 401, "invalid_api_key"), (made["key"], 403, "missing_scope")):
        for method, url in (("GET", "/v1/keys"), ("POST", path), ("POST", path + "/rotate")):
            found, answer = await keys.ask(method, url, b"{", key=key)
            assert (found, answer["error"]["code"]) == (status, code)
    await keys.ask("DELETE", path)
    for url in (path, path + "/rotate"):
        found, answer = await keys.ask("POST", url, {"name": "new"} if url == path else None)
        assert (found, answer["error"]["code"]) == (409, "key_revoked")
    await keys.made()
    await keys.made()
    found, answer = await keys.ask("POST", "/v1/keys", {"name": "one too many"})
    assert (found, answer["error"]["code"]) == (409, "too_many_keys")
