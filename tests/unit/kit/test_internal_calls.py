"""Who a service believes, and what it tells of its health."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from services.kit.health import Health
from services.kit.http import (
    Caller,
    NotInternalError,
    error_response,
    health_routes,
    internal_caller,
)

TOKEN = "shared"


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw})


def test_the_caller_is_whom_intake_vouches_for() -> None:
    caller = internal_caller(
        request(
            authorization="Bearer shared",
            x_antiphon_key_id="key_a",
            x_antiphon_project="proj_a",
            x_antiphon_scopes="api admin",
        ),
        token=TOKEN,
    )
    assert caller == Caller("key_a", "proj_a", frozenset({"api", "admin"}))
    assert caller.is_admin


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": ""}, {"authorization": "Bearer "}, {"authorization": "Bearer ühared"}],
)
@pytest.mark.parametrize("token", [TOKEN, ""])
def test_nobody_else_is_believed(headers: dict[str, str], token: str) -> None:
    with pytest.raises(NotInternalError):
        internal_caller(request(x_antiphon_scopes="admin", **headers), token=token)


def test_errors_have_the_api_s_shape() -> None:
    response = error_response(404, "gone", param="id", code="unknown")
    assert response.status_code == 404
    assert bytes(response.body) == (
        b'{"error":{"message":"gone","type":"invalid_request_error","param":"id","code":"unknown"}}'
    )


async def test_readiness_includes_liveness_and_metrics_are_always_there() -> None:
    async def no() -> bool:
        return False

    async def yes() -> bool:
        return True

    health = Health(readiness={"a": yes}, liveness={"b": no})
    routes: dict[str, Any] = {route.path: route.endpoint for route in health_routes(health)}  # type: ignore[attr-defined]  # all are plain routes
    assert [(await routes[path](request())).status_code for path in ("/healthz", "/readyz")] == [
        503,
        503,
    ]
    assert (await routes["/metrics"](request())).status_code == 200
