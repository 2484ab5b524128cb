"""docs/api.md has every route that the services serve, and no route that nobody serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from starlette.routing import BaseRoute, Route

from services.artifacts.api import Api
from services.artifacts.files.api import FilesApi
from services.costs.api import create_app
from services.intake.api.app import CREATE_PATH
from services.intake.api.conversations import ConversationRoutes
from services.intake.api.keys import KeyRoutes
from services.intake.api.openapi import openapi_routes
from services.intake.api.operations import OperationRoutes
from services.intake.api.routes import Routes
from services.kit.health import Health
from services.kit.http import health_routes
from services.mcp_broker.api import api_routes
from services.webhooks.api import PREFIXES as WEBHOOK_PREFIXES
from services.webhooks.api import Api as WebhooksApi

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
NOTHING = cast("Any", None)
"""Routes are listed without the parts that their handlers would use."""


def served() -> set[str]:
    routes: list[BaseRoute] = [
        *openapi_routes(),
        *Routes(NOTHING, NOTHING, NOTHING, NOTHING).routes(),
        *OperationRoutes(NOTHING, NOTHING, max_body_bytes=1, seats=NOTHING).routes(),
        *ConversationRoutes(NOTHING, NOTHING, NOTHING, max_body_bytes=1).routes(),
        *KeyRoutes(NOTHING, NOTHING, max_grace_seconds=0).routes(),
        *Api(NOTHING, token="").routes(),
        *FilesApi(NOTHING, token="", idle_seconds=1).routes(),
        *WebhooksApi(NOTHING, NOTHING, token="", wake=NOTHING).routes(),
        *create_app(NOTHING, token="", health=health_routes(Health())).routes,
        *api_routes(NOTHING, token=""),
    ]
    found = {f"POST {CREATE_PATH}"}
    for route in routes:
        assert isinstance(route, Route)
        if route.path.startswith(WEBHOOK_PREFIXES[1]):
            # A second name for the same, which the reference says once.
            continue
        path = re.sub(r"\{[^}]*\}", "{}", route.path)
        found |= {f"{method} {path}" for method in (route.methods or {"GET"}) - {"HEAD"}}
    return found


def documented() -> set[str]:
    text = PAGE.read_text(encoding="utf-8").partition("## Not supported yet")[0]
    spans = re.findall(r"`(GET|POST|DELETE)\s+(/[^`\s?]*)[^`]*`", text)
    return {f"{method} {re.sub(r'{[^}]*}', '{}', path)}" for method, path in spans}


def test_every_route_is_in_the_reference() -> None:
    assert served() - documented() == set()


def test_the_reference_has_no_route_that_nobody_serves() -> None:
    assert documented() - served() == set()
