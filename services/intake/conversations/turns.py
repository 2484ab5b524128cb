"""Turns: responses speak in their conversation one after the other."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from services.intake.admission.keys import ApiKey
from services.intake.domain import NewTurn, StoredResponse, conversation_of, input_items
from services.intake.errors import (
    conversation_locked,
    conversation_not_found,
    duplicate_item,
    item_not_found,
)
from services.intake.items.item import Identified, Item, usable_id
from services.kit.clock import Clock
from services.kit.outages import DATABASE_OUTAGES

logger = logging.getLogger(__name__)
_ID = re.compile(r"conv_[0-9a-f]{32}")
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
_SETTLE_SECONDS = 0.25


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

    async def open(self, conversation_id: str) -> list[str]:
        """Return the responses whose turns have not ended."""
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
        check_id(conversation_id)
        items = input_items(request)
        turn = NewTurn(
            response_id=response_id,
            conversation_id=conversation_id,
            project=key.project,
            input=orjson.dumps(items).decode(),
            item_ids=distinct_ids(items, param="input"),
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

    async def caught_up(self, conversation_id: str, told: Callable[[str], bool]) -> None:
        """Wait, within the bound, until what clients were `told` here is in the conversation.

        What they may have been told by another replica is given a moment.
        """
        began = self.clock.monotonic()
        settled = began + min(self.wait_seconds, _SETTLE_SECONDS)
        pause = _FIRST_PAUSE_SECONDS
        while running := await self.turns.open(conversation_id):
            now = self.clock.monotonic()
            deadline = began + self.wait_seconds if any(map(told, running)) else settled
            if now >= deadline:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def abandon(self, request: dict[str, Any], response_id: str) -> None:
        """Give the turn of a refused request back; should that fail it expires by itself."""
        if conversation_of(request) is None:
            return
        try:
            await self.turns.abandon(response_id)
        except DATABASE_OUTAGES as error:
            logger.warning("the turn of %s stays until it expires: %r", response_id, error)

    async def before(self, first: StoredResponse) -> list[Identified]:
        """Return what preceded the first response of a chain in its conversation, if it had one."""
        # Most requests have none: they need no second look at the body. One that was deleted is
        # not there to look at; what was said before it still is.
        request = first.request
        if request is not None and (
            '"conversation"' not in request or conversation_of(orjson.loads(request)) is None
        ):
            return []
        return await self.turns.before(first.response_id)


def check_id(conversation_id: str, item_id: str | None = None) -> None:
    """Refuse ids that no conversation or item of ours can have: `ApiError` (404)."""
    if _ID.fullmatch(conversation_id) is None:
        raise conversation_not_found(conversation_id)
    if item_id is not None and not usable_id(item_id):
        raise item_not_found(item_id)


def distinct_ids(items: list[Item], *, param: str) -> list[str]:
    """Return the ids that items came with; `ApiError` (400) when two are the same."""
    ids = [item["id"] for item in items if usable_id(item.get("id"))]
    if len(set(ids)) < len(ids):
        raise duplicate_item(next(one for one in ids if ids.count(one) > 1), param=param)
    return ids
