"""The routes of conversations and of the items that responses were given."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.intake.admission.keys import ApiKey, ApiKeys
from services.intake.api.create import read_body
from services.intake.body import parse_json
from services.intake.conversations.request import (
    ConversationUpdate,
    NewConversation,
    NewItems,
    parse,
)
from services.intake.conversations.service import Conversations
from services.intake.errors import invalid
from services.intake.items.inputs import InputItems
from services.intake.items.listing import included, list_query


class ConversationRoutes:
    """The handlers of `/v1/conversations` and of `/v1/responses/{id}/input_items`."""

    def __init__(
        self,
        conversations: Conversations,
        input_items: InputItems,
        keys: ApiKeys,
        *,
        max_body_bytes: int,
    ) -> None:
        self._conversations = conversations
        self._input_items = input_items
        self._keys = keys
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        every = "/v1/conversations"
        one = every + "/{conversation_id}"
        items = one + "/items"
        item = items + "/{item_id}"
        return [
            Route("/v1/responses/{response_id}/input_items", self.input_items, methods=["GET"]),
            Route(every, self.create, methods=["POST"]),
            Route(one, self.retrieve, methods=["GET"]),
            Route(one, self.update, methods=["POST"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(items, self.create_items, methods=["POST"]),
            Route(items, self.list_items, methods=["GET"]),
            Route(item, self.retrieve_item, methods=["GET"]),
            Route(item, self.delete_item, methods=["DELETE"]),
        ]

    async def input_items(self, request: Request) -> Response:
        """`GET /v1/responses/{id}/input_items`."""
        key = self._caller(request)
        query = list_query(request.query_params.multi_items())
        response_id = request.path_params["response_id"]
        return _json(await self._input_items.list(response_id, query, key))

    async def create(self, request: Request) -> Response:
        """`POST /v1/conversations`; the body may be left out."""
        key = self._caller(request)
        body = await self._body(request, default={})
        new = parse(NewConversation, body)
        items = body.get("items") or []
        return _json(await self._conversations.create(new.metadata or {}, items, key))

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}`."""
        key = self._caller(request)
        return _json(await self._conversations.get(_conversation(request), key))

    async def update(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}`."""
        key = self._caller(request)
        new = parse(ConversationUpdate, await self._body(request))
        conversation_id = _conversation(request)
        return _json(await self._conversations.update(conversation_id, new.metadata or {}, key))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}`."""
        key = self._caller(request)
        return _json(await self._conversations.delete(_conversation(request), key))

    async def create_items(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}/items`."""
        key = self._caller(request)
        # Clients write `include` into the query here; the body is understood, too.
        asked = list_query(request.query_params.multi_items()).include
        body = await self._body(request)
        new = parse(NewItems, body)
        include = asked | included(new.include or [])
        return _json(
            await self._conversations.add(_conversation(request), body["items"], include, key)
        )

    async def list_items(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items`."""
        key = self._caller(request)
        query = list_query(request.query_params.multi_items())
        return _json(await self._conversations.list(_conversation(request), query, key))

    async def retrieve_item(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items/{item}`."""
        key = self._caller(request)
        include = list_query(request.query_params.multi_items()).include
        item_id = request.path_params["item_id"]
        return _json(await self._conversations.item(_conversation(request), item_id, include, key))

    async def delete_item(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}/items/{item}`."""
        key = self._caller(request)
        item_id = request.path_params["item_id"]
        return _json(await self._conversations.delete_item(_conversation(request), item_id, key))

    def _caller(self, request: Request) -> ApiKey:
        return self._keys.authenticate(request.headers.get("authorization", ""))

    async def _body(self, request: Request, default: Any = None) -> dict[str, Any]:
        raw = await read_body(request.scope, request.receive, limit=self._max_body_bytes)
        if not raw and isinstance(default, dict):
            return default
        body = parse_json(raw)
        if not isinstance(body, dict):
            raise invalid("The request body must be a JSON object.", param=None)
        return body


def _json(answer: dict[str, Any]) -> Response:
    return Response(orjson.dumps(answer), media_type="application/json")


def _conversation(request: Request) -> str:
    return str(request.path_params["conversation_id"])
