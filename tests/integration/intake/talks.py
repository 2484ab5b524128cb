"""Conversations as tests hold them: the stores, a fresh conversation, and the facts of a turn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.event import Contract, Envelope
from contracts.principal import Principal
from contracts.responses import ResponseFinishedV1, RunResponseV1, TerminalStatus
from services.intake.admission.keys import ApiKey
from services.intake.conversations.service import Conversations
from services.intake.conversations.store import ConversationStore
from services.intake.conversations.turns import TurnTaker
from services.intake.conversations.turns_store import TurnStore
from services.intake.domain import NewTurn
from services.intake.items.item import Item
from services.intake.items.listing import ListQuery
from services.intake.store import ResponseStore
from services.intake.subscribers import Projection
from services.kit.batches import Received
from services.kit.blobs.disk import DiskBlobs
from services.kit.clock import SystemClock
from services.kit.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ASCENDING = ListQuery(descending=False, limit=100)


def message(text: str, role: str = "user") -> Item:
    return {"type": "message", "role": role, "content": text}


@dataclass
class Talk:
    """One conversation of one project, with everything that touches it."""

    conversation_id: str
    key: ApiKey
    conversations: Conversations
    turns: TurnStore
    taker: TurnTaker
    projection: Projection
    told: set[str]

    @property
    def owner(self) -> Principal:
        return Principal(project=self.key.project, key_id=self.key.key_id)

    def turn(self, response_id: str, *items: Item) -> NewTurn:
        return NewTurn(
            response_id=response_id,
            conversation_id=self.conversation_id,
            project=self.key.project,
            input=orjson.dumps(items).decode(),
            item_ids=[item["id"] for item in items if "id" in item],
        )

    async def begin(self, *items: Item) -> tuple[str, list[Item]]:
        """Take a turn as a create request does; return the response's id and its history."""
        response_id = new_id("resp")
        request = {"conversation": self.conversation_id, "input": list(items)}
        history = await self.taker.begin(request, response_id, self.key)
        assert history is not None
        return response_id, orjson.loads(history)

    def command(self, response_id: str, *, store: bool = True) -> Contract:
        return RunResponseV1(
            response_id=response_id,
            principal=self.owner,
            model="m",
            accepted_at=NOW,
            events_partition=0,
            store=store,
            conversation_id=self.conversation_id,
            request={"model": "m", "conversation": self.conversation_id},
        )

    def end(
        self,
        response_id: str,
        *output: Item,
        status: TerminalStatus = "completed",
        store: bool = True,
    ) -> Contract:
        return ResponseFinishedV1(
            response_id=response_id,
            attempt=1,
            status=status,
            principal=self.owner,
            model="m",
            provider="p",
            accepted_at=NOW,
            started_at=NOW,
            finished_at=NOW,
            events_partition=0,
            store=store,
            response={
                "id": response_id,
                "status": status,
                "conversation": {"id": self.conversation_id},
                "output": list(output),
            },
        )

    async def project(self, *facts: Contract) -> None:
        await self.projection.on_messages([_received(fact) for fact in facts])

    async def items(self) -> list[dict[str, Any]]:
        return list(
            (await self.conversations.list(self.conversation_id, ASCENDING, self.key))["data"]
        )

    async def said(self) -> list[str]:
        """The texts of the conversation's messages, oldest first."""
        return [item["content"][0]["text"] for item in await self.items()]


async def talk(
    engine: AsyncEngine,
    blobs: DiskBlobs,
    *items: Item,
    reserved_seconds: float = 60.0,
    run_seconds: float = 60.0,
    wait_seconds: float = 0.05,
    max_bytes: int = 1_000_000,
) -> Talk:
    """Begin a conversation with these items in a project of its own."""
    clock = SystemClock()
    key = ApiKey("key_a", f"proj_{uuid4().hex}", None, ("api",))
    turns = TurnStore(
        engine, reserved_seconds=reserved_seconds, run_seconds=run_seconds, max_bytes=max_bytes
    )
    taker = TurnTaker(turns, clock, wait_seconds=wait_seconds)
    told: set[str] = set()
    conversations = Conversations(ConversationStore(engine), taker, told.__contains__, clock)
    created = await conversations.create({}, list(items), key)
    return Talk(
        conversation_id=created["id"],
        key=key,
        conversations=conversations,
        turns=turns,
        taker=taker,
        told=told,
        projection=Projection(ResponseStore(engine), turns, blobs, clock),
    )


def _received(data: Contract) -> Received:
    envelope = Envelope(
        id=new_id("evt"), source="/test", type=data.TYPE, subject="s", time=NOW, data=data
    )
    return Received(envelope, "topic", 0, 0)
