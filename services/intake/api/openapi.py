"""`GET /openapi.json`: the document that `make schemas` wrote, as it is."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


def openapi_routes() -> list[BaseRoute]:
    """Return the route; it wants no key, since it tells nothing of anybody."""
    text = resources.files("services.intake.api").joinpath("openapi.json").read_bytes()

    async def document(_: Request) -> Response:
        return Response(text, media_type="application/json")

    return [Route("/openapi.json", document, methods=["GET"])]
