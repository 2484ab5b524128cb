"""Every route for every kind of caller: the documented status, and nothing of another project.

The rows are in `access.py`, which says how to add one; the routes come from the applications
themselves, so that one without a row fails here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientSession
from starlette.routing import Route

from services.artifacts.api import Api as ArtifactsApi
from services.artifacts.files.api import FilesApi
from services.costs.api import create_app as costs_app
from services.intake.api.app import IntakeApp
from services.intake.main import compose
from services.intake.settings import IntakeSettings
from services.kit.http import HttpServer
from services.kit.runtime import Runtime
from services.mcp_broker.api import api_routes as mcp_routes
from services.webhooks.api import Api as WebhooksApi
from tests.e2e.access import MODEL, SEE_ALL, TABLE, Made, Row
from tests.e2e.access_things import MAKERS, MARK, Answer, Caller
from tests.e2e.stack import Stack
from tests.upstream import UpstreamProcess

NOTHING = cast("Any", None)
NOBODY = ("without a key", "with a wrong key", "revoked", "expired", "replaced")
NO_OWNER = "/{rest:path}"


@dataclass
class People:
    """Callers of each kind; `project` is whose things are reached for."""

    project: str
    strangers: list[Caller]
    own: Caller
    colleague: Caller
    other: Caller
    root: Caller
    manager: Caller


@pytest.fixture(scope="session")
async def people(stack: Stack, http: ClientSession) -> AsyncIterator[People]:
    project = f"owners-{uuid4().hex[:8]}"

    async def key(**fields: Any) -> dict[str, Any]:
        async with http.post("/v1/keys", json={"name": "access", **fields}) as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    async def secret(**fields: Any) -> str:
        return str((await key(**{"project": project, **fields}))["key"])

    revoked, replaced = await key(project=project), await key(project=project)
    async with http.delete(f"/v1/keys/{revoked['id']}") as answer:
        assert answer.status == 200
    async with http.post(f"/v1/keys/{replaced['id']}/rotate") as answer:
        assert answer.status == 200
    secrets = {
        "without a key": None,
        "with a wrong key": "sk-antiphon-nobody-has-this-one",
        "revoked": revoked["key"],
        "expired": await secret(expires_at=1_700_000_000),
        "replaced": replaced["key"],
        "own": await secret(user="ada"),
        "colleague": await secret(user="eve"),
        "other": await secret(project=f"others-{uuid4().hex[:8]}"),
        "root": stack.admin_key,
        "manager": await secret(scopes=["api", "admin"]),
    }
    async with AsyncExitStack() as opened:
        found = {name: Caller(name, stack.url, value) for name, value in secrets.items()}
        for caller in found.values():
            await opened.enter_async_context(caller.http)
        strangers = [found.pop(name) for name in NOBODY]
        yield People(project, strangers, **found)


async def application() -> IntakeApp:
    """Intake's application, wired as in production but not started."""
    address = "http://127.0.0.1:1"
    settings = IntakeSettings(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        upstream_base_url=address,
        artifacts_url=address,
        costs_url=address,
        mcp_broker_url=address,
        webhooks_url=address,
    )
    runtime = Runtime(stop_seconds=1)
    await compose(settings, runtime)
    [server] = [part for part in runtime._parts if isinstance(part, HttpServer)]
    app = server._config.app
    assert isinstance(app, IntakeApp)
    return app


def forwarded() -> set[str]:
    """Method and path of all that the owners behind intake serve below `/v1`."""
    routes = [
        *ArtifactsApi(NOTHING, token="").routes(),
        *FilesApi(NOTHING, token="", idle_seconds=1).routes(),
        *costs_app(NOTHING, token="", health=[]).routes,
        *mcp_routes(NOTHING, token=""),
        *WebhooksApi(NOTHING, NOTHING, token="", wake=lambda: None).routes(),
    ]
    found = set()
    for route in routes:
        assert isinstance(route, Route)
        found |= {f"{method} {route.path}" for method in (route.methods or {"GET"}) - {"HEAD"}}
    return found


async def test_every_route_has_a_row_and_every_row_a_route() -> None:
    served = (await application()).served()
    prefixes = {path.removesuffix(NO_OWNER) for _, path in served if path.endswith(NO_OWNER)}
    own = {
        f"{method} {re.sub(r':path}', '}', path)}"
        for method, path in served
        if path.removesuffix(NO_OWNER) not in prefixes
    }
    behind = forwarded()
    for prefix in prefixes:
        assert any(prefix in route for route in behind), f"whose routes are below {prefix}?"
    rows = {row.route for row in TABLE}
    assert (own | behind) - rows == set(), "add rows to tests/e2e/access.py"
    assert rows - (own | behind) == set(), "these rows have no route any more"


@dataclass
class Reach:
    """A row, and what it reaches for, made anew once a caller may have changed it."""

    row: Row
    people: People
    made: Made | None = None

    async def by(self, caller: Caller) -> Answer:
        """Let a caller try."""
        if self.made is None:
            people = self.people
            self.made = (
                await MAKERS[self.row.thing](people.own, people.manager) if self.row.thing else {}
            )
        answer = await self.of(caller, self.made)
        if self.row.method != "GET" and answer.status < 400:
            self.made = None
        return answer

    async def of(self, caller: Caller, made: Made) -> Answer:
        """Let a caller try with these ids."""
        query = f"?{self.row.query.format(**made)}" if self.row.query else ""
        path = self.row.path.format(**made) + query
        return await caller.ask(self.row.method, path, self.row.body(made))


def nobodys(made: Made) -> Made:
    """Return ids that look like these and were never given to anything, not of the last minute."""
    found = {}
    for name, value in made.items():
        digits = re.search(r"[0-9a-f]{16,}$", value)
        old = "01900000000070008000" + uuid4().hex
        found[name] = value[: digits.start()] + old[: len(digits[0])] if digits else f"{value}-no"
    return found


def error_without(ids: Made, answer: Answer) -> Any:
    """Return the error of an answer, with the ids taken out of it."""
    text = answer.text
    for value in ids.values():
        text = text.replace(value, "...")
    return orjson.loads(text)["error"]


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_each_caller_gets_what_the_table_says(
    row: Row, people: People, upstream: UpstreamProcess
) -> None:
    reach = Reach(row, people)
    for caller in people.strangers:
        answer = await reach.by(caller)
        if row.public:
            assert answer.status == row.own
            continue
        assert (answer.status, answer.code) == (401, "invalid_api_key"), caller.name
    root = row.other if row.root is None else row.root
    manager = row.own if row.manager is None else row.manager
    for caller, status in (
        (people.other, row.other),
        (people.root, root),
        (people.own, row.own),
        (people.colleague, row.own),
        (people.manager, manager),
    ):
        answer = await reach.by(caller)
        assert answer.status == status, f"{caller.name}: {answer.text}"
        sees_all = caller is people.root and row.path.startswith(SEE_ALL)
        if caller in (people.other, people.root) and not sees_all and not row.public:
            assert MARK not in answer.text, caller.name
            assert people.project not in answer.text, caller.name


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.thing and row.other in (400, 404)], ids=str
)
async def test_what_is_another_project_s_is_told_as_what_nobody_has(
    row: Row, people: People, upstream: UpstreamProcess
) -> None:
    made = await MAKERS[row.thing](people.own, people.manager)
    absent = nobodys(made)
    reach = Reach(row, people)
    theirs = await reach.of(people.other, made)
    missing = await reach.of(people.other, absent)
    assert theirs.status == missing.status == row.other
    assert error_without(made, theirs) == error_without(absent, missing)


async def test_projects_may_use_the_same_idempotency_key(
    people: People, upstream: UpstreamProcess
) -> None:
    body = {"model": MODEL, "input": f"say: {MARK}"}
    headers = {"idempotency-key": f"same-{uuid4().hex}"}
    found = []
    for caller in (people.own, people.other, people.own, people.colleague):
        async with caller.http.post("/v1/responses", json=body, headers=headers) as answer:
            found.append((answer.status, (await answer.json())["id"]))
    (_, own), (_, other), (_, again), _ = found
    assert [status for status, _ in found] == [200] * 4
    assert own == again != other
