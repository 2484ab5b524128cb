"""What a client is told on any route when it goes wrong, and what leaves intake for an owner."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from yarl import URL

from services.intake.api.forward import Forwarder
from services.intake.clients import HttpClients
from services.intake.errors import ApiError
from tests.unit.intake.apps import ADMIN, Exchange, Intake

FAILURES: dict[str, Exception] = {
    "refused": ApiError(403, "not you", code="missing_scope"),
    "outage": OSError("disk"),
    "database": DBAPIError("SELECT", {}, Exception("away")),
}


async def fail(request: Request) -> Response:
    raise FAILURES[request.path_params["why"]]


async def fine(_: Request) -> Response:
    return JSONResponse({"fine": True})


ROUTES = [Route("/v1/fail/{why}", fail), Route("/v1/fine", fine, methods=["GET"])]


async def get(path: str, *, method: str = "GET") -> Exchange:
    return await Exchange(Intake(routes=[*ROUTES]), b"", path=path, method=method).run()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nowhere", 404),
        ("POST", "/v1/responses/", 404),
        ("GET", "/", 404),
        ("DELETE", "/v1/fine", 405),
        ("GET", "/v1/fail/refused", 403),
        ("GET", "/v1/fail/outage", 503),
        ("GET", "/v1/fail/database", 503),
    ],
)
async def test_every_refusal_has_the_api_s_shape(method: str, path: str, status: int) -> None:
    answer = await get(path, method=method)
    assert answer.status == status
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_bug_is_told_in_the_api_s_shape_and_shown_to_the_server() -> None:
    intake = Intake(routes=[Route("/v1/bug", bug)])
    exchange = Exchange(intake, b"", path="/v1/bug", method="GET")
    with pytest.raises(KeyError):
        await exchange.run()
    assert exchange.status == 500
    assert exchange.error["type"] == "server_error"


async def bug(_: Request) -> Response:
    raise KeyError("x")


async def test_a_refused_method_names_those_that_work() -> None:
    assert "GET" in (await get("/v1/fine", method="DELETE")).headers["allow"]


async def test_an_outage_says_when_to_come_again() -> None:
    assert int((await get("/v1/fail/outage")).headers["retry-after"]) > 0


async def test_good_answers_have_a_request_id_too() -> None:
    assert (await get("/v1/fine")).headers["x-request-id"].startswith("req_")


class Owner(HttpClients):
    """An owner that notes what it is asked and is away when `error` says so."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.asked: list[tuple[str, URL, CIMultiDict[str], bytes | AsyncIterable[bytes]]] = []
        self.error = error

    async def forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes | AsyncIterable[bytes]
    ) -> aiohttp.ClientResponse:
        self.asked.append((method, url, headers, body))
        raise self.error or aiohttp.ClientConnectionError


def forwarding(owner: Owner, base_url: str | None = "http://owner:1/") -> Intake:
    intake = Intake()
    forwarder = Forwarder(owner, intake.keys, internal_token="internal")
    return Intake(routes=forwarder.routes({"/v1/costs": base_url}))


async def forwarded(
    path: str = "/v1/costs", *, query: bytes = b"", **options: Any
) -> tuple[Exchange, Owner]:
    owner = Owner()
    exchange = Exchange(forwarding(owner), b"", path=path, method="GET", **options)
    exchange._scope["query_string"] = query
    return await exchange.run(), owner


async def test_the_owner_learns_who_asks_but_never_the_client_s_secret() -> None:
    headers = {
        "cookie": "a=b",
        "x-antiphon-project": "somebody-elses",
        "x-antiphon-scopes": "admin",
        "accept": "text/csv",
        "range": "bytes=0-1",
        "accept-encoding": "gzip",
    }
    _, owner = await forwarded(headers=headers)
    [(method, url, sent, body)] = owner.asked
    assert (method, str(url), body) == ("GET", "http://owner:1/v1/costs", b"")
    assert ADMIN not in str(CIMultiDictProxy(sent))
    assert dict(sent) == {
        "authorization": "Bearer internal",
        "x-antiphon-key-id": "key_admin",
        "x-antiphon-project": "default",
        "x-antiphon-scopes": "api admin",
        "accept": "text/csv",
        "range": "bytes=0-1",
        "accept-encoding": "identity",
    }


async def test_path_and_query_arrive_as_they_were() -> None:
    _, owner = await forwarded("/v1/costs/a b?c#d/ü", query=b"group_by=model&x=%2F")
    [(_, url, _, _)] = owner.asked
    assert str(url) == "http://owner:1/v1/costs/a%20b%3Fc%23d/%C3%BC?group_by=model&x=%2F"


@pytest.mark.parametrize(
    "path",
    ["/v1/costs/../../metrics", "/v1/costs/..", "/v1/costs/./x", "/v1/costs/a/../../../healthz"],
)
async def test_a_path_can_not_climb_out_of_its_prefix(path: str) -> None:
    answer, owner = await forwarded(path)
    assert answer.status == 404
    assert owner.asked == []


async def test_without_a_key_nothing_is_forwarded() -> None:
    answer, owner = await forwarded(key=None)
    assert answer.status == 401
    assert owner.asked == []


async def test_an_owner_that_is_away_is_an_outage() -> None:
    answer, _ = await forwarded()
    assert (answer.status, answer.error["type"]) == (503, "server_error")


async def test_an_owner_that_is_not_installed_is_not_found() -> None:
    owner = Owner()
    answer = await Exchange(forwarding(owner, None), b"", path="/v1/costs", method="GET").run()
    assert answer.status == 404
    assert owner.asked == []
