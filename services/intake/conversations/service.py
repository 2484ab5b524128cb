"""Conversations: what their owners do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from services.intake.admission.keys import ApiKey
from services.intake.conversations.turns import TurnTaker, check_id, distinct_ids
from services.intake.domain import Conversation
from services.intake.files import RequestFiles
from services.intake.items.item import Identified, Item, identified, listed
from services.intake.items.listing import ListQuery, list_object
from services.kit.clock import Clock
from services.kit.ids import new_id


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
class Conversations:
    """What the owner of conversations can do with them; all of it raises `ApiError` (404)."""

    store: StoredConversations
    turns: TurnTaker
    told: Callable[[str], bool]
    clock: Clock
    files: RequestFiles | None = None

    async def create(self, metadata: dict[str, str], items: list[Item], key: ApiKey) -> Item:
        """Make a conversation and return it."""
        await self._check_files(items, key)
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
        check_id(conversation_id)
        return _object(await self.store.get(conversation_id, project=key.project))

    async def update(self, conversation_id: str, metadata: dict[str, str], key: ApiKey) -> Item:
        """Replace a conversation's metadata and return it."""
        check_id(conversation_id)
        text = orjson.dumps(metadata).decode()
        return _object(await self.store.update(conversation_id, project=key.project, metadata=text))

    async def delete(self, conversation_id: str, key: ApiKey) -> Item:
        """Delete a conversation with its items; the responses that were part of it stay."""
        check_id(conversation_id)
        await self.store.delete(conversation_id, project=key.project)
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    async def add(
        self, conversation_id: str, items: list[Item], include: frozenset[str], key: ApiKey
    ) -> Item:
        """Add items at the end and return them as a list; 400 for one that is there already."""
        check_id(conversation_id)
        await self._check_files(items, key)
        entries = _new_items(items)
        await self.store.add(conversation_id, project=key.project, items=entries)
        return list_object(entries, include, has_more=False)

    async def _check_files(self, items: list[Item], key: ApiKey) -> None:
        if self.files is not None:
            await self.files.check(items, param="items", project=key.project)

    async def list(self, conversation_id: str, query: ListQuery, key: ApiKey) -> Item:
        """Return one page of items; 400 when `after` names none of them."""
        check_id(conversation_id)
        await self.turns.caught_up(conversation_id, self.told)
        entries, has_more = await self.store.list(conversation_id, project=key.project, query=query)
        return list_object(entries, query.include, has_more=has_more)

    async def item(
        self, conversation_id: str, item_id: str, include: frozenset[str], key: ApiKey
    ) -> Item:
        """Return one item."""
        check_id(conversation_id, item_id)
        await self.turns.caught_up(conversation_id, self.told)
        entry = await self.store.item(conversation_id, item_id, project=key.project)
        return listed(entry, include)

    async def delete_item(self, conversation_id: str, item_id: str, key: ApiKey) -> Item:
        """Delete one item and return its conversation."""
        check_id(conversation_id, item_id)
        return _object(await self.store.delete_item(conversation_id, item_id, project=key.project))


def _new_items(items: list[Item]) -> list[Identified]:
    distinct_ids(items, param="items")
    return identified(items, new_id("add"))


def _object(conversation: Conversation) -> Item:
    return {
        "id": conversation.conversation_id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": orjson.loads(conversation.metadata),
    }
