"""A past for intake's schema: stored responses in chains and conversations, by COPY."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import asyncpg
import orjson

PROJECTS = 1_000
DAYS = 30
BATCH = 20_000
CHAINS = (1, 1, 1, 1, 2, 2, 3, 5, 8, 20, 40)
TURNS = (2, 5, 10, 10, 20, 100)
CONVERSATION_SHARE = 0.15
KEY_SHARE = 0.25
"""Requests with an `Idempotency-Key`, of which only those of the last day are kept."""
PARTITIONS = 8
TURN_MS = (5_000, 600_000)
"""From one response of a chain or a conversation to the next."""
WORDS = "the a of river stone light answer model token stream seldom carries over bright night "
_RESPONSE_COLUMNS = (
    *("response_id", "project", "key_id", "user", "chat", "model", "status", "background"),
    *("stream", "events_partition", "previous_response_id", "accepted_at", "finished_at"),
    *("last_sequence_number", "request", "response", "deleted_at"),
)


Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class Past:
    """One stored response before its texts are made."""

    ms: int
    response_id: str
    project: int
    previous: str | None = None
    conversation: str | None = None
    turn: int = 0

    @property
    def project_name(self) -> str:
        return f"project-{self.project}"

    @property
    def key_id(self) -> str:
        return f"key_{self.project:032x}"


@dataclass(slots=True)
class DataSet:
    """What was filled in, and what queries can ask for: (id, project, ...) of each kind."""

    responses: list[tuple[str, str, str]] = field(default_factory=list)
    chains_of_20: list[tuple[str, str]] = field(default_factory=list)
    conversations: list[tuple[str, str, int]] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)

    def sample(self, most: int) -> DataSet:
        """Give so many of each kind at the most, spread evenly."""
        return DataSet(
            _spread(self.responses, most),
            _spread(self.chains_of_20, most),
            _spread(self.conversations, most),
            _spread(self.keys, most),
        )


def _spread(places: list[Place], most: int) -> list[Place]:
    return places[:: max(len(places) // most, 1)]


def identifier(prefix: str, ms: int, chance: random.Random) -> str:
    """Give an id of that moment, as `services.kit.ids` makes them."""
    low = chance.getrandbits(74)
    value = ms << 80 | 0x7 << 76 | (low >> 62) << 64 | 0b10 << 62 | low & 0x3FFF_FFFF_FFFF_FFFF
    return f"{prefix}_{value:032x}"


def plan(rows: int, chance: random.Random) -> tuple[list[Past], DataSet]:
    """Decide on all responses, sorted by their time as they would have been stored."""
    now_ms, known = int(time.time() * 1000), DataSet()
    pasts: list[Past] = []
    while len(pasts) < rows:
        # Few projects ask most.
        project = int(PROJECTS * chance.random() ** 2)
        ms = now_ms - int(chance.random() * DAYS * 86_400_000)
        in_conversation = chance.random() < CONVERSATION_SHARE / 3
        length = chance.choice(TURNS if in_conversation else CHAINS)
        conversation = identifier("conv", ms, chance) if in_conversation else None
        previous = None
        for turn in range(length):
            response_id = identifier("resp", ms, chance)
            pasts.append(
                Past(ms, response_id, project, None if conversation else previous,
                     conversation, turn + 1)
            )  # fmt: skip
            if turn == 19 and conversation is None:
                known.chains_of_20.append((response_id, pasts[-1].project_name))
            previous = response_id
            ms = min(ms + chance.randint(*TURN_MS), now_ms)
        if conversation is not None:
            known.conversations.append((conversation, pasts[-1].project_name, length))
    pasts.sort(key=lambda past: past.ms)
    known.responses = [(past.response_id, past.project_name, past.key_id) for past in pasts]
    return pasts, known


class Texts:
    """Requests and responses of realistic shapes: a few hundred bytes to some kilobytes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        words = WORDS.split()
        self._prose = " ".join(chance.choice(words) for _ in range(60_000))

    def prose(self, usual_bytes: int) -> str:
        """Give some text; a few are ten times as long as usual."""
        size = min(int(self._chance.lognormvariate(0, 0.8) * usual_bytes) + 20, 40_000)
        start = self._chance.randrange(len(self._prose) - size)
        return self._prose[start : start + size]

    def request(self, past: Past, asked: str) -> str:
        """Give the body of a create request."""
        body: dict[str, Any] = {
            "model": "gpt-5.1",
            "instructions": "You are a helpful assistant. Answer briefly and in full sentences.",
            "input": [{"type": "message", "role": "user", "content": asked}],
            "stream": True,
            "metadata": {"chat_id": past.conversation or past.response_id[:20]},
        }
        if past.previous:
            body["previous_response_id"] = past.previous
        if past.conversation:
            body["conversation"] = past.conversation
        return orjson.dumps(body).decode()

    def response(self, past: Past, item: dict[str, Any]) -> str:
        """Give a finished Response object."""
        conversation = {"id": past.conversation} if past.conversation else None
        usage = {"input_tokens": 128, "output_tokens": 230, "total_tokens": 358}
        return orjson.dumps(
            {
                "id": past.response_id,
                "object": "response",
                "created_at": past.ms // 1000,
                "status": "completed",
                "background": False,
                "conversation": conversation,
                "error": None,
                "incomplete_details": None,
                "instructions": None,
                "max_output_tokens": None,
                "metadata": {},
                "model": "gpt-5.1-2026-04-14",
                "output": [item],
                "parallel_tool_calls": True,
                "service_tier": "default",
                "previous_response_id": past.previous,
                "store": True,
                "temperature": 1.0,
                "reasoning": {"effort": None, "summary": None},
                "tool_choice": "auto",
                "text": {"format": {"type": "text"}},
                "tools": [],
                "top_p": 1.0,
                "truncation": "disabled",
                "usage": usage,
                "user": None,
            }
        ).decode()


def message(item_id: str, role: str, text: str) -> dict[str, Any]:
    """Give a message item."""
    kind = "input_text" if role == "user" else "output_text"
    content = {"type": kind, "text": text}
    return {"id": item_id, "type": "message", "role": role, "content": [content]}


def moment(ms: int) -> datetime:
    """Give a time as the database keeps it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


async def fill(url: str, rows: int, *, seed: int = 1) -> DataSet:
    """Fill the migrated schema of intake with a past; the tables should be empty."""
    chance = random.Random(seed)
    pasts, known = plan(rows, chance)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        await _conversations(connection, known.conversations)
        texts = Texts(chance)
        remaining = iter(pasts)
        while batch := list(islice(remaining, BATCH)):
            await _responses(connection, batch, texts)
        known.keys = await _keys(connection, pasts, chance)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return known


async def _conversations(connection: Any, found: Sequence[tuple[str, str, int]]) -> None:
    now = moment(int(time.time() * 1000))
    await connection.copy_records_to_table(
        "conversations",
        schema_name="intake",
        columns=("conversation_id", "project", "key_id", "metadata", "created_at", "turns"),
        records=[(one, project, "key_a", "{}", now, turns) for one, project, turns in found],
    )


async def _responses(connection: Any, batch: Sequence[Past], texts: Texts) -> None:
    rows, turns, items = [], [], []
    for past in batch:
        at, asked = moment(past.ms), texts.prose(300)
        said = message(f"msg_{past.response_id[5:]}", "assistant", texts.prose(700))
        rows.append(
            (past.response_id, past.project_name, past.key_id, None, past.conversation, "gpt-5.1",
             "completed", False, True, past.project % PARTITIONS, past.previous, at, at, 90,
             texts.request(past, asked), texts.response(past, said), None)
        )  # fmt: skip
        if past.conversation:
            turns.append((past.response_id, past.conversation, past.turn, at, at, at, None))
            given = message(f"msg_{past.response_id[5:-2]}in", "user", asked)
            for position, item in enumerate((given, said)):
                text = orjson.dumps(item).decode()
                items.append((past.conversation, past.turn, position, item["id"], text))
    await connection.copy_records_to_table(
        "responses", schema_name="intake", columns=_RESPONSE_COLUMNS, records=rows
    )
    await connection.copy_records_to_table(
        "conversation_turns",
        schema_name="intake",
        columns=("response_id", "conversation_id", "turn", "reserved_at", "accepted_at",
                 "settled_at", "input"),
        records=turns,
    )  # fmt: skip
    await connection.copy_records_to_table(
        "conversation_items",
        schema_name="intake",
        columns=("conversation_id", "turn", "position", "item_id", "item"),
        records=items,
    )


async def _keys(
    connection: Any, pasts: Sequence[Past], chance: random.Random
) -> list[tuple[str, str]]:
    taken = [past for past in pasts if chance.random() < KEY_SHARE]
    now_ms = int(time.time() * 1000)

    def rows() -> Iterator[tuple[Any, ...]]:
        for past in taken:
            at = moment(now_ms - (now_ms - past.ms) // DAYS)
            name = f"key-{past.response_id}"
            yield (past.project_name, name, b"\0" * 32, past.response_id, 0, at, 1, at, False)

    await connection.copy_records_to_table(
        "idempotency_keys",
        schema_name="intake",
        columns=("project", "idempotency_key", "body_sha256", "response_id", "events_partition",
                 "created_at", "attempt", "attempted_at", "published"),
        records=rows(),
    )  # fmt: skip
    return [(past.project_name, f"key-{past.response_id}") for past in taken]
