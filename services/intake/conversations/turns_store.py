"""The turns that responses take in conversations, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.intake.domain import NewTurn, TurnEnd
from services.intake.errors import conversation_not_found, duplicate_item, history_too_large
from services.intake.items.item import Identified, identified
from services.kit.database import TimedEngine

_LOCK = text("""
    SELECT 1 FROM intake.conversations
    WHERE conversation_id = :conversation_id AND project = :project FOR NO KEY UPDATE
""")
_TAKEN = text("""
    SELECT 1 FROM intake.conversation_turns
    WHERE conversation_id = :conversation_id AND settled_at IS NULL
        AND (accepted_at > :run_since OR (accepted_at IS NULL AND reserved_at > :reserved_since))
    LIMIT 1
""")
_DUPLICATE = text("""
    SELECT item_id FROM intake.conversation_items
    WHERE conversation_id = :conversation_id AND item_id = ANY(:ids) LIMIT 1
""")
_SIZE = text("""
    SELECT coalesce(sum(octet_length(item) + 1), 0) FROM intake.conversation_items
    WHERE conversation_id = :conversation_id
""")
_ITEMS = text("""
    SELECT item FROM intake.conversation_items
    WHERE conversation_id = :conversation_id ORDER BY turn, position
""")
_NEXT = text("""
    UPDATE intake.conversations SET turns = turns + 1
    WHERE conversation_id = :conversation_id RETURNING turns
""")
_RESERVE = text("""
    INSERT INTO intake.conversation_turns (response_id, conversation_id, turn, reserved_at, input)
    VALUES (:response_id, :conversation_id, :turn, :now, :input)
""")
_ABANDON = text("""
    DELETE FROM intake.conversation_turns WHERE response_id = :response_id AND settled_at IS NULL
""")
_IS_OPEN = text("""
    SELECT 1 FROM intake.conversation_turns WHERE response_id = :response_id AND settled_at IS NULL
""")
_OPEN_IDS = text("""
    SELECT response_id FROM intake.conversation_turns
    WHERE conversation_id = :conversation_id AND settled_at IS NULL
""")
_ACCEPTED = text("""
    UPDATE intake.conversation_turns SET accepted_at = :now
    WHERE response_id = ANY(:ids) AND accepted_at IS NULL
""")
# The conversations first, as everybody does: whoever deletes one waits for us or we for him.
_HOLD = text("""
    SELECT 1 FROM intake.conversations c
    JOIN intake.conversation_turns t USING (conversation_id)
    WHERE t.response_id = ANY(:ids) ORDER BY c.conversation_id FOR KEY SHARE OF c
""")
_OPEN = text("""
    SELECT t.response_id, t.conversation_id, t.turn, t.input,
           coalesce(r.status = 'cancelled' OR r.deleted_at IS NOT NULL, false)
    FROM intake.conversation_turns t LEFT JOIN intake.responses r USING (response_id)
    WHERE t.response_id = ANY(:ids) AND t.settled_at IS NULL
    ORDER BY t.response_id FOR UPDATE OF t
""")
_SETTLE = text("""
    UPDATE intake.conversation_turns SET settled_at = :now, input = NULL
    WHERE response_id = ANY(:ids)
""")
_APPEND = text("""
    INSERT INTO intake.conversation_items (conversation_id, turn, position, item_id, item)
    SELECT * FROM unnest(
        CAST(:conversation_id AS text[]), CAST(:turn AS bigint[]), CAST(:position AS int[]),
        CAST(:item_id AS text[]), CAST(:item AS text[])
    )
""")
_BEFORE = text("""
    SELECT i.item_id, i.item FROM intake.conversation_turns t
    JOIN intake.conversation_items i ON i.conversation_id = t.conversation_id AND i.turn < t.turn
    WHERE t.response_id = :response_id ORDER BY i.turn, i.position
""")


async def next_turn(connection: AsyncConnection, conversation_id: str) -> int:
    """Return the next number of a conversation whose row the caller's transaction has locked."""
    found = await connection.execute(_NEXT, {"conversation_id": conversation_id})
    return int(found.scalar_one())


async def lock(connection: AsyncConnection, conversation_id: str, project: str) -> None:
    """Lock a conversation's row for writers; raises `ApiError` (404)."""
    owner = {"conversation_id": conversation_id, "project": project}
    if (await connection.execute(_LOCK, owner)).first() is None:
        raise conversation_not_found(conversation_id)


async def refuse_duplicates(
    connection: AsyncConnection, conversation_id: str, ids: Sequence[str], *, param: str
) -> None:
    """Raise `ApiError` (400) when the conversation has one of these ids already."""
    if not ids:
        return
    values = {"conversation_id": conversation_id, "ids": list(ids)}
    found = (await connection.execute(_DUPLICATE, values)).first()
    if found is not None:
        raise duplicate_item(found[0], param=param)


async def append(
    connection: AsyncConnection, entries: Sequence[tuple[str, int, Sequence[Identified]]]
) -> None:
    """Add items at (conversation id, turn), whose rows the caller's transaction holds."""
    columns: dict[str, list[Any]] = {
        "conversation_id": [], "turn": [], "position": [], "item_id": [], "item": []
    }  # fmt: skip
    for conversation_id, turn, items in entries:
        for position, entry in enumerate(items):
            columns["conversation_id"].append(conversation_id)
            columns["turn"].append(turn)
            columns["position"].append(position)
            columns["item_id"].append(entry.item_id)
            columns["item"].append(orjson.dumps(entry.item).decode())
    if columns["item"]:
        await connection.execute(_APPEND, columns)


class TurnStore:
    """Who may speak next in a conversation, and what was said when a response has ended.

    What clients wait for raises `TimeoutError` after `answer_seconds`; what is projected does not.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        reserved_seconds: float,
        run_seconds: float,
        max_bytes: int,
        answer_seconds: float | None = None,
    ) -> None:
        self._engine = engine
        self._timed = TimedEngine(engine, seconds=answer_seconds)
        self._reserved = timedelta(seconds=reserved_seconds)
        self._run = timedelta(seconds=run_seconds)
        self._max_bytes = max_bytes

    async def reserve(self, turn: NewTurn, *, now: datetime) -> bytes | None:
        """Take the next turn of a conversation; return its items so far as a JSON array.

        None when another response has the turn. A turn whose command was not seen on the log for
        `reserved_seconds`, or which has run for `run_seconds`, does not keep others out any more.
        Raises `ApiError`: 404, 400 for items that are there already or too large a history.
        """
        conversation = {"conversation_id": turn.conversation_id}
        since = {"run_since": now - self._run, "reserved_since": now - self._reserved}
        async with self._timed.begin() as connection:
            await lock(connection, turn.conversation_id, turn.project)
            if (await connection.execute(_TAKEN, {**conversation, **since})).first() is not None:
                return None
            await refuse_duplicates(connection, turn.conversation_id, turn.item_ids, param="input")
            size = (await connection.execute(_SIZE, conversation)).scalar_one()
            if size > self._max_bytes:
                raise history_too_large("conversation")
            items = (await connection.execute(_ITEMS, conversation)).scalars().all()
            number = await next_turn(connection, turn.conversation_id)
            row = {"response_id": turn.response_id, "turn": number, "now": now, "input": turn.input}
            await connection.execute(_RESERVE, {**conversation, **row})
        return ("[" + ",".join(items) + "]").encode()

    async def abandon(self, response_id: str) -> None:
        """Give the turn of a response back that was refused after all. Idempotent."""
        async with self._timed.begin() as connection:
            await connection.execute(_ABANDON, {"response_id": response_id})

    async def accepted(self, response_ids: Sequence[str], *, now: datetime) -> None:
        """Note that these responses are on the log and will end. Idempotent."""
        async with self._engine.begin() as connection:
            await connection.execute(_ACCEPTED, {"ids": list(response_ids), "now": now})

    async def is_open(self, response_id: str) -> bool:
        """Whether a response has a turn in a conversation that has not ended."""
        async with self._engine.connect() as connection:
            found = await connection.execute(_IS_OPEN, {"response_id": response_id})
            return found.first() is not None

    async def open(self, conversation_id: str) -> list[str]:
        """Return the responses whose turns in a conversation have not ended."""
        async with self._timed.connect() as connection:
            found = await connection.execute(_OPEN_IDS, {"conversation_id": conversation_id})
            return list(found.scalars())

    async def settle(self, ends: Sequence[TurnEnd], *, now: datetime) -> None:
        """End turns: add what was said, exactly once however often and in what order it is told.

        A response that was cancelled or deleted before leaves nothing in its conversation.
        """
        output = {end.response_id: end.output for end in reversed(ends)}
        ids = {"ids": sorted(output)}
        async with self._engine.begin() as connection:
            await connection.execute(_HOLD, ids)
            turns = (await connection.execute(_OPEN, ids)).all()
            entries = []
            for response_id, conversation_id, number, given, dropped in turns:
                said = output[response_id]
                if said is not None and not dropped:
                    items = [*orjson.loads(given or "[]"), *said]
                    entries.append((conversation_id, number, identified(items, response_id)))
            await append(connection, entries)
            if turns:
                settled = {"ids": [turn[0] for turn in turns], "now": now}
                await connection.execute(_SETTLE, settled)

    async def before(self, response_id: str) -> list[Identified]:
        """Return the items that preceded a response in its conversation, as far as they remain."""
        async with self._timed.connect() as connection:
            rows = await connection.execute(_BEFORE, {"response_id": response_id})
            return [Identified(item_id, orjson.loads(item)) for item_id, item in rows]
