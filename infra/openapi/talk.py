"""Responses and conversations, with the vendor's own models for the answers."""

from __future__ import annotations

from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
)
from openai.types.responses import Response, ResponseItemList
from openai.types.responses.input_token_count_response import InputTokenCountResponse

from infra.openapi.operation import (
    JSON,
    SSE,
    TEXT,
    Operation,
    Parameter,
    choice,
    count,
    deleted,
    record,
)
from services.intake.conversations.request import ConversationUpdate, NewConversation, NewItems
from services.intake.items.listing import INCLUDABLE, MAX_LIMIT
from services.intake.operations.request import CompactConversation, CountInputTokens
from services.intake.request import CreateResponse

_ONE = "/v1/responses/{response_id}"
_TALK = "/v1/conversations/{conversation_id}"
_ITEMS = _TALK + "/items"
_INCLUDE = Parameter(
    "include",
    {"type": "array", "items": choice(*sorted(INCLUDABLE))},
    "what is left out unless it is asked for",
)
_ITEM_PAGE = (
    Parameter("order", choice("asc", "desc"), "oldest or newest first, default `desc`"),
    Parameter("after", TEXT, "an item's id: those that follow it"),
    Parameter("before", TEXT, "an item's id: those that come before it"),
    Parameter("limit", count(1, MAX_LIMIT), "how many at most, default 20"),
    _INCLUDE,
)
_IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "the same key and body again give the same response",
    where="header",
)
# The vendor's own model has no place for the user's messages, which its answers begin with.
_COMPACTION = record(
    "response.compaction",
    id=TEXT,
    created_at=count(0),
    output={"type": "array", "items": {"type": "object", "required": ["type"]}},
    usage={"type": "object"},
)
_BUSY = (408, 409, 413, 429, 502, 504)

TALK = (
    Operation(
        method="post",
        path="/v1/responses",
        tag="responses",
        summary="Create a response: JSON, a stream of events, or in the background",
        body=CreateResponse,
        answer=Response,
        media=(JSON, SSE),
        parameters=(_IDEMPOTENCY_KEY,),
        errors=(*_BUSY, 415, 422, 500),
    ),
    Operation(
        method="get",
        path=_ONE,
        tag="responses",
        summary="Read a response, or stream its events again",
        answer=Response,
        media=(JSON, SSE),
        parameters=(
            Parameter("stream", {"type": "boolean"}, "events instead of the object"),
            Parameter("starting_after", count(0), "only events with a larger sequence number"),
        ),
    ),
    Operation(
        method="delete",
        path=_ONE,
        tag="responses",
        summary="Forget a response and its artifacts",
        answer=deleted("response"),
    ),
    Operation(
        method="post",
        path=_ONE + "/cancel",
        tag="responses",
        summary="Stop a background response",
        answer=Response,
    ),
    Operation(
        method="get",
        path=_ONE + "/input_items",
        tag="responses",
        summary="List what a response was given",
        answer=ResponseItemList,
        parameters=_ITEM_PAGE,
    ),
    Operation(
        method="post",
        path="/v1/responses/input_tokens",
        tag="responses",
        summary="Count the input tokens of a request",
        body=CountInputTokens,
        answer=InputTokenCountResponse,
        errors=_BUSY,
    ),
    Operation(
        method="post",
        path="/v1/responses/compact",
        tag="responses",
        summary="Make a conversation shorter",
        body=CompactConversation,
        answer=_COMPACTION,
        errors=_BUSY,
    ),
    Operation(
        method="post",
        path="/v1/conversations",
        tag="conversations",
        summary="Begin a conversation",
        body=NewConversation,
        body_required=False,
        answer=Conversation,
        errors=(413,),
    ),
    Operation(
        method="get",
        path=_TALK,
        tag="conversations",
        summary="Read a conversation",
        answer=Conversation,
    ),
    Operation(
        method="post",
        path=_TALK,
        tag="conversations",
        summary="Replace the metadata of a conversation",
        body=ConversationUpdate,
        answer=Conversation,
        errors=(413,),
    ),
    Operation(
        method="delete",
        path=_TALK,
        tag="conversations",
        summary="Delete a conversation; its responses stay",
        answer=ConversationDeletedResource,
    ),
    Operation(
        method="post",
        path=_ITEMS,
        tag="conversations",
        summary="Add items to a conversation",
        body=NewItems,
        answer=ConversationItemList,
        parameters=(_INCLUDE,),
        errors=(413,),
    ),
    Operation(
        method="get",
        path=_ITEMS,
        tag="conversations",
        summary="List the items of a conversation",
        answer=ConversationItemList,
        parameters=_ITEM_PAGE,
    ),
    Operation(
        method="get",
        path=_ITEMS + "/{item_id}",
        tag="conversations",
        summary="Read an item",
        answer=ConversationItem,
        parameters=(_INCLUDE,),
    ),
    Operation(
        method="delete",
        path=_ITEMS + "/{item_id}",
        tag="conversations",
        summary="Take an item out of a conversation",
        answer=Conversation,
    ),
)
