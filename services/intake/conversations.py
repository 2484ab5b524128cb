"""Conversations: what their owners do with them, and the turns responses take in them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson
from sqlalchemy.exc import DBAPIError

from services.intake.domain import (
    Conversation,
    NewTurn,
    StoredResponse,
    conversation_of,
    input_items,
)
from services.intake.errors import (
    conversation_locked,
    conversation_not_found,
    duplicate_item,
    item_not_found,
)
from services.intake.items import (
    Identified,
    Item,
    ListQuery,
    identified,
    list_object,
    listed,
    usable_id,
)
from services.intake.keys import ApiKey
from services.kit.clock import Clock
from services.kit.ids import new_id

logger = logging.getLogger(__name__)
_ID = re.compile(r"conv_[0-9a-f]{32}")
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1


class Turns(Protocol):
    """Who may speak next in a conversation."""

    async def reserve(self, turn: NewTurn, *, now: datetime) -> bytes | None:
        """Take the next turn and return the items so far, None while another has it."""
        ...

    async def abandon(self, response_id: str) -> None:
        """Give a turn back. Idempotent."""
        ...

    async def before(self, response_id: str) -> list[Identified]:
        """Return the items that preceded a response in its conversation."""
        ...


class StoredConversations(Protocol):
    """Where conversations are kept; each method raises `ApiError` (404) for what is not there."""

    async def create(self, conversation: Conversation, items: Sequence[Identified]) -> None:
        """Add a conversation with its first items."""
        ...

    async def get(self, conversation_id: str, *, project: str) -> Conversation:
        """Return a conversation of the project."""
        ...

    async def update(self, conversation_id: str, *, project: str, metadata: str) -> Conversation:
        """Replace the metadata and return the conversation."""
        ...

    async def delete(self, conversation_id: str, *, project: str) -> None:
        """Remove a conversation, its items and its turns."""
        ...

    async def add(self, conversation_id: str, *, project: str, items: Sequence[Identified]) -> None:
        """Add items at the end; `ApiError` (400) for one that is there already."""
        ...

    async def list(
        self, conversation_id: str, *, project: str, query: ListQuery
    ) -> tuple[Sequence[Identified], bool]:
        """Return one page of items and whether there are more; 400 for an unknown `after`."""
        ...

    async def item(self, conversation_id: str, item_id: str, *, project: str) -> Identified:
        """Return one item."""
        ...

    async def delete_item(
        self, conversation_id: str, item_id: str, *, project: str
    ) -> Conversation:
        """Remove an item and return its conversation."""
        ...


@dataclass
class TurnTaker:
    """Lets responses into their conversations one after the other."""

    turns: Turns
    clock: Clock
    wait_seconds: float

    async def begin(self, request: dict[str, Any], response_id: str, key: ApiKey) -> bytes | None:
        """Take the turn of a request in the conversation it names; return the history as JSON.

        None when it names no conversation. A turn that another response has is waited for within a
        bound, since that response may have ended already and only its projection be late. Raises
        `ApiError`: 404, 400 when the conversation stays locked, has an item of the input already or
        is too large.
        """
        conversation_id = conversation_of(request)
        if conversation_id is None:
            return None
        _check_id(conversation_id)
        items = input_items(request)
        turn = NewTurn(
            response_id=response_id,
            conversation_id=conversation_id,
            project=key.project,
            input=orjson.dumps(items).decode(),
            item_ids=_distinct_ids(items, param="input"),
        )
        deadline = self.clock.monotonic() + self.wait_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            history = await self.turns.reserve(turn, now=self.clock.now())
            if history is not None:
                return history
            if self.clock.monotonic() >= deadline:
                raise conversation_locked()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def abandon(self, request: dict[str, Any], response_id: str) -> None:
        """Give the turn of a refused request back; should that fail it expires by itself."""
        if conversation_of(request) is None:
            return
        try:
            await self.turns.abandon(response_id)
        except (DBAPIError, OSError, TimeoutError) as error:
            logger.warning("the turn of %s stays until it expires: %r", response_id, error)

    async def before(self, first: StoredResponse) -> list[Identified]:
        """Return what preceded the first response of a chain in its conversation, if it had one."""
        # Most requests have none: they need no second look at the body.
        if first.request is None or '"conversation"' not in first.request:
            return []
        if conversation_of(orjson.loads(first.request)) is None:
            return []
        return await self.turns.before(first.response_id)


@dataclass
class Conversations:
    """What the owner of conversations can do with them; all of it raises `ApiError` (404)."""

    store: StoredConversations
    clock: Clock

    async def create(self, metadata: dict[str, str], items: list[Item], key: ApiKey) -> Item:
        """Make a conversation and return it."""
        conversation = Conversation(
            conversation_id=new_id("conv"),
            project=key.project,
            key_id=key.key_id,
            metadata=orjson.dumps(metadata).decode(),
            created_at=self.clock.now(),
        )
        await self.store.create(conversation, _new_items(items))
        return _object(conversation)

    async def get(self, conversation_id: str, key: ApiKey) -> Item:
        """Return a conversation."""
        _check_id(conversation_id)
        return _object(await self.store.get(conversation_id, project=key.project))

    async def update(self, conversation_id: str, metadata: dict[str, str], key: ApiKey) -> Item:
        """Replace a conversation's metadata and return it."""
        _check_id(conversation_id)
        text = orjson.dumps(metadata).decode()
        return _object(await self.store.update(conversation_id, project=key.project, metadata=text))

    async def delete(self, conversation_id: str, key: ApiKey) -> Item:
        """Delete a conversation with its items; the responses that were part of it stay."""
        _check_id(conversation_id)
        await self.store.delete(conversation_id, project=key.project)
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    async def add(
        self, conversation_id: str, items: list[Item], include: frozenset[str], key: ApiKey
    ) -> Item:
        """Add items at the end and return them as a list; 400 for one that is there already."""
        _check_id(conversation_id)
        entries = _new_items(items)
        await self.store.add(conversation_id, project=key.project, items=entries)
        return list_object(entries, include, has_more=False)

    async def list(self, conversation_id: str, query: ListQuery, key: ApiKey) -> Item:
        """Return one page of items; 400 when `after` names none of them."""
        _check_id(conversation_id)
        entries, has_more = await self.store.list(conversation_id, project=key.project, query=query)
        return list_object(entries, query.include, has_more=has_more)

    async def item(
        self, conversation_id: str, item_id: str, include: frozenset[str], key: ApiKey
    ) -> Item:
        """Return one item."""
        _check_id(conversation_id, item_id)
        entry = await self.store.item(conversation_id, item_id, project=key.project)
        return listed(entry, include)

    async def delete_item(self, conversation_id: str, item_id: str, key: ApiKey) -> Item:
        """Delete one item and return its conversation."""
        _check_id(conversation_id, item_id)
        return _object(await self.store.delete_item(conversation_id, item_id, project=key.project))


def _check_id(conversation_id: str, item_id: str | None = None) -> None:
    if _ID.fullmatch(conversation_id) is None:
        raise conversation_not_found(conversation_id)
    if item_id is not None and not usable_id(item_id):
        raise item_not_found(item_id)


def _new_items(items: list[Item]) -> list[Identified]:
    _distinct_ids(items, param="items")
    return identified(items, new_id("add"))


def _distinct_ids(items: list[Item], *, param: str) -> list[str]:
    ids = [item["id"] for item in items if usable_id(item.get("id"))]
    if len(set(ids)) < len(ids):
        raise duplicate_item(next(one for one in ids if ids.count(one) > 1), param=param)
    return ids


def _object(conversation: Conversation) -> Item:
    return {
        "id": conversation.conversation_id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": orjson.loads(conversation.metadata),
    }
