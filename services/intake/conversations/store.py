"""Conversations and their items in PostgreSQL; the turns of responses are in `turns_store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.intake.conversations.turns_store import append, lock, next_turn, refuse_duplicates
from services.intake.domain import Conversation
from services.intake.errors import conversation_not_found, item_not_found
from services.intake.items.item import Identified, usable_id
from services.intake.items.listing import ListQuery, unknown_cursor
from services.kit.database import TimedEngine

_COLUMNS = "conversation_id, project, key_id, metadata, created_at"
_CREATE = text(f"""
    INSERT INTO intake.conversations ({_COLUMNS})
    VALUES (:conversation_id, :project, :key_id, :metadata, :created_at)
""")  # noqa: S608 - only the names of columns
_GET = text(f"""
    SELECT {_COLUMNS} FROM intake.conversations
    WHERE conversation_id = :conversation_id AND project = :project
""")  # noqa: S608
_UPDATE = text(f"""
    UPDATE intake.conversations SET metadata = :metadata
    WHERE conversation_id = :conversation_id AND project = :project RETURNING {_COLUMNS}
""")  # noqa: S608
_DELETE = text("""
    DELETE FROM intake.conversations
    WHERE conversation_id = :conversation_id AND project = :project RETURNING 1
""")
_PLACE = text("""
    SELECT turn, position FROM intake.conversation_items
    WHERE conversation_id = :conversation_id AND item_id = :item_id
    ORDER BY turn DESC, position DESC LIMIT 1
""")
_PAGE = {
    descending: text(f"""
        SELECT item_id, item FROM intake.conversation_items
        WHERE conversation_id = :conversation_id
            AND (CAST(:turn AS bigint) IS NULL
                 OR (turn, position) {"<" if descending else ">"} (:turn, CAST(:position AS int)))
        ORDER BY turn {"DESC" if descending else "ASC"}, position {"DESC" if descending else "ASC"}
        LIMIT :most
    """)  # noqa: S608 - only an operator and a direction
    for descending in (True, False)
}
_ITEM = text("""
    SELECT item_id, item FROM intake.conversation_items
    WHERE conversation_id = :conversation_id AND item_id = :item_id
    ORDER BY turn DESC, position DESC LIMIT 1
""")
_DELETE_ITEM = text("""
    DELETE FROM intake.conversation_items
    WHERE conversation_id = :conversation_id AND item_id = :item_id RETURNING 1
""")


class ConversationStore:
    """The owner's side of conversations. Every method is one transaction; 404 as `ApiError`.

    What takes longer than `answer_seconds` raises `TimeoutError`.
    """

    def __init__(self, engine: AsyncEngine, *, answer_seconds: float | None = None) -> None:
        self._timed = TimedEngine(engine, seconds=answer_seconds)

    async def create(self, conversation: Conversation, items: Sequence[Identified]) -> None:
        """Add a conversation with its first items."""
        row = {name: getattr(conversation, name) for name in conversation.__slots__}
        async with self._timed.begin() as connection:
            await connection.execute(_CREATE, row)
            await _append(connection, conversation.conversation_id, items)

    async def get(self, conversation_id: str, *, project: str) -> Conversation:
        """Return a conversation of the project."""
        async with self._timed.connect() as connection:
            return await _get(connection, conversation_id, project)

    async def update(self, conversation_id: str, *, project: str, metadata: str) -> Conversation:
        """Replace the metadata and return the conversation."""
        values = {"conversation_id": conversation_id, "project": project, "metadata": metadata}
        async with self._timed.begin() as connection:
            return _found((await connection.execute(_UPDATE, values)).first(), conversation_id)

    async def delete(self, conversation_id: str, *, project: str) -> None:
        """Remove a conversation, its items and its turns."""
        values = {"conversation_id": conversation_id, "project": project}
        async with self._timed.begin() as connection:
            if (await connection.execute(_DELETE, values)).first() is None:
                raise conversation_not_found(conversation_id)

    async def add(self, conversation_id: str, *, project: str, items: Sequence[Identified]) -> None:
        """Add items at the end; `ApiError` (400) for one that is there already."""
        async with self._timed.begin() as connection:
            await lock(connection, conversation_id, project)
            ids = [entry.item_id for entry in items]
            await refuse_duplicates(connection, conversation_id, ids, param="items")
            await _append(connection, conversation_id, items)

    async def list(
        self, conversation_id: str, *, project: str, query: ListQuery
    ) -> tuple[Sequence[Identified], bool]:
        """Return one page of items and whether there are more; 400 for an unknown `after`."""
        values: dict[str, Any] = {"conversation_id": conversation_id, "turn": None}
        values.update(position=None, most=query.limit + 1)
        async with self._timed.connect() as connection:
            await _get(connection, conversation_id, project)
            if query.after is not None:
                values.update(await _place(connection, conversation_id, query.after))
            rows = await connection.execute(_PAGE[query.descending], values)
            entries = [Identified(item_id, orjson.loads(item)) for item_id, item in rows]
        return entries[: query.limit], len(entries) > query.limit

    async def item(self, conversation_id: str, item_id: str, *, project: str) -> Identified:
        """Return one item."""
        values = {"conversation_id": conversation_id, "item_id": item_id}
        async with self._timed.connect() as connection:
            await _get(connection, conversation_id, project)
            row = (await connection.execute(_ITEM, values)).first()
        if row is None:
            raise item_not_found(item_id)
        return Identified(row[0], orjson.loads(row[1]))

    async def delete_item(
        self, conversation_id: str, item_id: str, *, project: str
    ) -> Conversation:
        """Remove an item and return its conversation."""
        values = {"conversation_id": conversation_id, "item_id": item_id}
        async with self._timed.begin() as connection:
            conversation = await _get(connection, conversation_id, project)
            if (await connection.execute(_DELETE_ITEM, values)).first() is None:
                raise item_not_found(item_id)
        return conversation


async def _get(connection: AsyncConnection, conversation_id: str, project: str) -> Conversation:
    values = {"conversation_id": conversation_id, "project": project}
    return _found((await connection.execute(_GET, values)).first(), conversation_id)


def _found(row: Row[Any] | None, conversation_id: str) -> Conversation:
    if row is None:
        raise conversation_not_found(conversation_id)
    return Conversation(*tuple(row))


async def _place(connection: AsyncConnection, conversation_id: str, item_id: str) -> dict[str, int]:
    if usable_id(item_id):
        values = {"conversation_id": conversation_id, "item_id": item_id}
        row = (await connection.execute(_PLACE, values)).first()
        if row is not None:
            return {"turn": row[0], "position": row[1]}
    raise unknown_cursor(item_id, "after")


async def _append(
    connection: AsyncConnection, conversation_id: str, items: Sequence[Identified]
) -> None:
    if items:
        turn = await next_turn(connection, conversation_id)
        await append(connection, [(conversation_id, turn, items)])
