"""Intake's HTTP application in memory: requests go in as ASGI messages, packs as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from starlette.routing import BaseRoute

from contracts.packs import Entry, Flag, encode_pack
from contracts.providers import ProviderConfig, Providers
from services.intake.admission.keys import ApiKeys
from services.intake.admission.seats import SeatBounds, Seats
from services.intake.api.app import IntakeApp
from services.intake.api.create import CreateEndpoint
from services.intake.conversations.turns import TurnTaker
from services.intake.domain import NewTurn, StoredResponse
from services.intake.items.history import Reader
from services.intake.items.item import Identified
from services.intake.log import Log
from services.intake.service import Bounds, Responses
from services.intake.streaming.hubs import Hub
from services.kit.blobs.disk import DiskBlobs
from services.kit.deadletters import Record
from services.kit.producer import Headers, Producer
from tests.unit.kit.records import Graveyard, Message

ADMIN = "sk-antiphon-admin"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Sent(Producer):
    """Keeps messages; raises `error` instead when there is one, and hangs while `held`."""

    error: Exception | None = None
    held: bool = False
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: str | bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        within_seconds: float | None = None,
    ) -> None:
        if self.held:
            async with asyncio.timeout(within_seconds):
                await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.messages.append((topic, value or b""))
        self.arrived.set()

    async def spread(self, topic: str) -> int:
        return 0

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.messages]

    def command(self, number: int = -1) -> dict[str, Any]:
        return dict(orjson.loads(self.messages[number][1])["data"])


@dataclass
class Shelf:
    """Stored responses; an error instead of an answer when there is one."""

    rows: dict[str, StoredResponse] = field(default_factory=dict)
    chains: dict[str, list[StoredResponse]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    error: Exception | None = None

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        if self.error is not None:
            raise self.error
        return self.rows.get(response_id)

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        if self.error is not None:
            raise self.error
        return self.chains.get(response_id, [])

    async def cancelled(self, response_id: str) -> None: ...

    async def deleted(self, owners: Sequence[tuple[str, str, str]]) -> None: ...

    async def any_deleted(self, response_ids: Sequence[str]) -> bool:
        return any(one in self.gone for one in response_ids)


class NoTurns:
    """No conversation exists."""

    async def reserve(self, turn: NewTurn, *, now: datetime) -> bytes | None:
        return None

    async def abandon(self, response_id: str) -> None: ...

    async def before(self, response_id: str) -> list[Identified]:
        return []

    async def open(self, conversation_id: str) -> list[str]:
        return []


class Intake:
    """The application, with everything around it in memory."""

    def __init__(
        self,
        *,
        routes: list[BaseRoute] | None = None,
        max_body_bytes: int = 10_000,
        max_open: int = 10,
        max_bodies_bytes: int = 1_000_000,
        accept_seconds: float = 5.0,
        response_seconds: float = 5.0,
    ) -> None:
        self.clock = HandClock()
        self.producer = Sent()
        self.shelf = Shelf()
        self.hub = Hub("nowhere:0", partition=3, dead_letters=Graveyard())
        self.keys = ApiKeys(self.producer, self.clock, admin_secret=ADMIN)
        providers = (ProviderConfig(name="a", base_url="http://nowhere", models=("gpt-*",)),)
        self.responses = Responses(
            log=Log(self.producer, self.clock, accept_seconds),
            hub=self.hub,
            reader=Reader(self.shelf, self.clock, wait_seconds=0.0),
            turns=TurnTaker(NoTurns(), self.clock, wait_seconds=0.0),
            blobs=DiskBlobs(Path("/nowhere")),
            providers=Providers(providers=providers),
            clock=self.clock,
            bounds=Bounds(
                response_seconds=response_seconds,
                max_open=max_open,
                max_chain=3,
                max_history_bytes=100_000,
                stream_buffer_bytes=1_000,
            ),
        )
        self.seats = Seats(SeatBounds(max_open, body_bytes=max_bodies_bytes))
        create = CreateEndpoint(
            self.responses, self.keys, max_body_bytes=max_body_bytes, seats=self.seats
        )
        self.app = IntakeApp(create, routes or [])

    def publish(self, *entries: Entry) -> None:
        """Let a pack arrive from the worker."""
        record: Record = Message(encode_pack(entries))
        self.hub._split(record)

    def entry(self, payload: bytes, *, index: int = 0, flags: int = 0, status: int = 200) -> Entry:
        """Return an entry for the response that was accepted last."""
        response_id = str(self.producer.command()["response_id"])
        return Entry(response_id.encode(), 1, index, payload, flags, status)


class Exchange:
    """One HTTP request and what came back for it."""

    def __init__(
        self,
        intake: Intake,
        body: bytes | list[bytes],
        *,
        path: str = "/v1/responses",
        method: str = "POST",
        key: str | None = ADMIN,
        headers: dict[str, str] | None = None,
    ) -> None:
        given = dict(headers or {})
        if key is not None:
            given["authorization"] = f"Bearer {key}"
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        self._intake = intake
        self._body = body if isinstance(body, list) else [body]
        self._gone = asyncio.Event()
        self.messages: list[Any] = []
        self.reading = 0

    async def _receive(self) -> dict[str, Any]:
        if self.reading < len(self._body):
            part = self._body[self.reading]
            self.reading += 1
            more = self.reading < len(self._body)
            return {"type": "http.request", "body": part, "more_body": more}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)

    def hang_up(self) -> None:
        self._gone.set()

    async def run(self) -> Exchange:
        async with asyncio.timeout(5):
            await self._intake.app(self._scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def error(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body)["error"])


def last_json(intake: Intake, payload: bytes, *, status: int = 200) -> Entry:
    return intake.entry(payload, flags=Flag.JSON | Flag.LAST, status=status)
