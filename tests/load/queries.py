"""Every query that intake makes, through its own stores, and how long each takes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.intake.admission.keys import ApiKey
from services.intake.conversations.store import ConversationStore
from services.intake.conversations.turns import TurnTaker
from services.intake.conversations.turns_store import TurnStore
from services.intake.domain import AcceptedRow, Conversation, FinishedRow, NewTurn, TurnEnd
from services.intake.idempotency.service import KeyClaim
from services.intake.idempotency.store import IdempotencyStore
from services.intake.items.history import Reader
from services.intake.items.inputs import InputItems
from services.intake.items.item import identified
from services.intake.items.listing import ListQuery
from services.intake.store import ResponseStore
from services.kit.clock import SystemClock
from services.kit.ids import new_id
from tests.load.dataset import DataSet, Past, Texts, message
from tests.load.generator import percentiles

CONNECTIONS = 4
BATCH = 100
BAR_P95_MS = 100.0
Ask = Callable[[], Awaitable[float | None]]
"""Asks once; gives the ms of the query alone when it had to prepare something."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One query: how often it was asked, and percentiles in ms."""

    name: str
    asked: int
    p50: float
    p95: float
    p99: float

    @property
    def met(self) -> bool:
        return self.p95 < BAR_P95_MS


class Queries:
    """Asks for random parts of a data set, as intake does."""

    def __init__(self, engine: AsyncEngine, known: DataSet, *, seed: int = 2) -> None:
        self._known = known
        self._chance = random.Random(seed)
        self._texts = Texts(self._chance)
        self._numbers = count()
        clock = SystemClock()
        self._responses = ResponseStore(engine)
        self._conversations = ConversationStore(engine)
        self._turns = TurnStore(
            engine, reserved_seconds=60.0, run_seconds=600.0, max_bytes=64 * 1024 * 1024
        )
        self._keys = IdempotencyStore(engine, keep_seconds=86_400.0, patience_seconds=1.0)
        self._given = InputItems(
            Reader(self._responses, clock, wait_seconds=0.0),
            TurnTaker(self._turns, clock, wait_seconds=0.0),
            max_chain=1_000,
        )

    def all(self) -> dict[str, tuple[Ask, int]]:
        """Give each query with the share of the usual number of times to ask it."""
        return {
            "retrieve": (self.retrieve, 1),
            "chain of 20": (self.chain, 1),
            "input items, page of 20 after a chain of 20": (self.input_items, 1),
            "conversation": (self.conversation, 1),
            "conversation items, first page of 20": (self.items, 1),
            "conversation items, a page in the middle": (self.items_after, 1),
            "one item of a conversation": (self.item, 1),
            "create a conversation with 2 items": (self.create_conversation, 1),
            "add 2 items to a conversation": (self.add_items, 1),
            "take a turn and read the items before it": (self.turn, 1),
            "idempotency: a new key": (self.new_key, 1),
            "idempotency: a key that is there": (self.known_key, 1),
            f"project {BATCH} commands": (self.accepted, 10),
            f"project {BATCH} starts": (self.started, 10),
            f"project {BATCH} ends": (self.finished, 10),
            "end 20 turns of conversations": (self.settle, 10),
            "cancel": (self.cancel, 1),
            "delete": (self.delete, 1),
            "idempotency: forget 1,000 keys": (self.forget, 50),
        }

    async def retrieve(self) -> None:
        response_id, project, _ = self._chance.choice(self._known.responses)
        assert await self._responses.get(response_id, project=project) is not None

    async def chain(self) -> None:
        response_id, project = self._chance.choice(self._known.chains_of_20)
        assert len(await self._responses.chain(response_id, project=project, most=1_000)) == 20

    async def input_items(self) -> None:
        response_id, project = self._chance.choice(self._known.chains_of_20)
        page = await self._given.list(response_id, ListQuery(), _key(project))
        assert len(page["data"]) == 20

    async def conversation(self) -> None:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        await self._conversations.get(conversation_id, project=project)

    async def items(self) -> None:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        await self._page(conversation_id, project, ListQuery())

    async def items_after(self) -> float:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        last = await self._page(conversation_id, project, ListQuery(limit=3))
        began = time.perf_counter()
        await self._page(conversation_id, project, ListQuery(after=last))
        return _ms_since(began)

    async def item(self) -> float:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        last = await self._page(conversation_id, project, ListQuery(limit=1))
        began = time.perf_counter()
        await self._conversations.item(conversation_id, last, project=project)
        return _ms_since(began)

    async def _page(self, conversation_id: str, project: str, query: ListQuery) -> str:
        entries, _ = await self._conversations.list(conversation_id, project=project, query=query)
        return entries[-1].item_id if entries else ""

    async def create_conversation(self) -> None:
        made = Conversation(new_id("conv"), "project-1", "key_a", "{}", _now())
        await self._conversations.create(made, identified(self._two(), new_id("add")))

    async def add_items(self) -> None:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        entries = identified(self._two(), new_id("add"))
        await self._conversations.add(conversation_id, project=project, items=entries)

    def _two(self) -> list[dict[str, Any]]:
        texts = [self._texts.prose(300) for _ in range(2)]
        return [message(new_id("msg"), "user", text) for text in texts]

    async def turn(self) -> None:
        await self._turn()

    async def _turn(self) -> str:
        conversation_id, project, _ = self._chance.choice(self._known.conversations)
        turn = NewTurn(
            response_id=new_id("resp"),
            conversation_id=conversation_id,
            project=project,
            input="[]",
            item_ids=[new_id("msg")],
        )
        await self._turns.reserve(turn, now=_now())
        return turn.response_id

    async def new_key(self) -> None:
        holder = await self._keys.take(self._claim("project-1", new_id("key")))
        assert holder is not None
        assert holder.taken

    async def known_key(self) -> None:
        holder = await self._keys.take(self._claim(*self._chance.choice(self._known.keys)))
        assert holder is not None

    @staticmethod
    def _claim(project: str, name: str) -> KeyClaim:
        return KeyClaim(project, name, hashlib.sha256(name.encode()).digest(), new_id("resp"), 0)

    async def accepted(self) -> float:
        rows = [self._row() for _ in range(BATCH)]
        began = time.perf_counter()
        await self._responses.accepted(rows)
        return _ms_since(began)

    async def started(self) -> float:
        rows = [self._row() for _ in range(BATCH)]
        await self._responses.accepted(rows)
        owners = [(row.response_id, row.project, row.key_id) for row in rows]
        began = time.perf_counter()
        await self._responses.started(owners)
        return _ms_since(began)

    async def finished(self) -> float:
        rows = [self._row() for _ in range(BATCH)]
        await self._responses.accepted(rows)
        ends = [self._end(row) for row in rows]
        began = time.perf_counter()
        await self._responses.finished(ends)
        return _ms_since(began)

    async def settle(self) -> float:
        ids = [await self._turn() for _ in range(20)]
        item = message(new_id("msg"), "assistant", self._texts.prose(700))
        ends = [TurnEnd(response_id, [{**item, "id": new_id("msg")}]) for response_id in ids]
        began = time.perf_counter()
        await self._turns.settle(ends, now=_now())
        return _ms_since(began)

    def _row(self) -> AcceptedRow:
        past = Past(int(time.time() * 1000), new_id("resp"), self._chance.randrange(1_000))
        return AcceptedRow(
            response_id=past.response_id,
            project=past.project_name,
            key_id=past.key_id,
            user=None,
            chat=None,
            model="gpt-5.1",
            background=True,
            stream=True,
            events_partition=0,
            previous_response_id=None,
            accepted_at=_now(),
            request=self._texts.request(past, self._texts.prose(300)),
        )

    def _end(self, row: AcceptedRow) -> FinishedRow:
        past = Past(0, row.response_id, 0)
        item = message(new_id("msg"), "assistant", self._texts.prose(700))
        return FinishedRow(
            response_id=row.response_id,
            project=row.project,
            key_id=row.key_id,
            user=None,
            chat=None,
            model=row.model,
            events_partition=0,
            accepted_at=row.accepted_at,
            finished_at=_now(),
            status="completed",
            last_sequence_number=90,
            response=self._texts.response(past, item),
        )

    async def cancel(self) -> None:
        await self._responses.cancelled(self._chance.choice(self._known.responses)[0])

    async def delete(self) -> None:
        await self._responses.deleted([self._chance.choice(self._known.responses)])

    async def forget(self) -> None:
        await self._keys.forget(most=1_000)


async def measure(ask: Ask, *, name: str, times: int) -> Timing:
    """Ask that often over a few connections at once and time each."""
    spent: list[float] = []
    left = iter(range(times))

    async def one() -> None:
        for _ in left:
            began = time.perf_counter()
            own_ms = await ask()
            spent.append(_ms_since(began) if own_ms is None else own_ms)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    found = percentiles(spent)
    assert found is not None
    return Timing(name, len(spent), found["p50"], found["p95"], found["p99"])


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _key(project: str) -> ApiKey:
    return ApiKey("key_a", project, None, ("api",))


def _now() -> datetime:
    return datetime.now(UTC)
