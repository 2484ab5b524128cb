"""What the server has seen: every request with its fate, and counts; in memory and bounded."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.answers import Json

_MAX_EXCHANGES = 20_000


@dataclass
class Exchange:
    """One request and what became of it. `at` is Unix time, `body` the JSON or the raw text.

    `run` says that it began a response, which costs; a look at one that exists does not.
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float = field(default_factory=time.time)
    status: int = 0
    stream: bool = False
    response_id: str | None = None
    run: bool = False
    faults: list[str] = field(default_factory=list)
    events_sent: int = 0
    finished: bool = False
    severed: bool = False
    client_closed: bool = False
    duration_s: float | None = None


@dataclass
class Stats:
    """Counts since the start or the last reset; those of open things are current."""

    requests: int = 0
    runs: int = 0
    open_requests: int = 0
    open_streams: int = 0
    max_open_requests: int = 0
    max_open_streams: int = 0
    held: int = 0
    finished: int = 0
    streams_finished: int = 0
    client_disconnects: int = 0
    events_sent: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Keeps the newest exchanges and lets readers wait for a change."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.exchanges: deque[Exchange] = deque(maxlen=_MAX_EXCHANGES)
        self._changed = asyncio.Event()

    def open(self, exchange: Exchange) -> None:
        """Record a request that arrived."""
        self.exchanges.append(exchange)
        self.stats.requests += 1
        self.stats.by_path[f"{exchange.method} {exchange.path}"] += 1
        self.stats.open_requests += 1
        self.stats.max_open_requests = max(self.stats.max_open_requests, self.stats.open_requests)
        self.touch()

    def stream(self, exchange: Exchange, step: int) -> None:
        """Record that a stream started (`step` 1) or stopped (-1)."""
        exchange.stream = True
        self.stats.open_streams += step
        self.stats.max_open_streams = max(self.stats.max_open_streams, self.stats.open_streams)
        self.touch()

    def began(self, exchange: Exchange, response_id: str) -> None:
        """Record that the exchange began a response."""
        exchange.response_id = response_id
        exchange.run = True
        self.stats.runs += 1

    def hold(self, step: int) -> None:
        """Record that an answer waits at a gate (`step` 1) or goes on (-1)."""
        self.stats.held += step
        self.touch()

    def faulted(self, exchange: Exchange, name: str) -> None:
        """Record a fault that this exchange is subject to."""
        exchange.faults.append(name)
        self.stats.faults[name] += 1

    def sent(self, exchange: Exchange) -> None:
        """Record an event that was written to the client."""
        exchange.events_sent += 1
        self.stats.events_sent += 1
        self.touch()

    def close(self, exchange: Exchange, *, status: int | None) -> None:
        """Record the end: with a status, or with None when the connection was gone first."""
        exchange.duration_s = time.time() - exchange.at
        self.stats.open_requests -= 1
        if status is None:
            exchange.client_closed = not exchange.severed
            self.stats.client_disconnects += exchange.client_closed
        else:
            exchange.status, exchange.finished = status, True
            self.stats.by_status[str(status)] += 1
            self.stats.finished += 1
            self.stats.streams_finished += exchange.stream
        self.touch()

    def reset(self) -> None:
        """Forget everything except what is open right now."""
        fresh = Stats(
            open_requests=self.stats.open_requests,
            open_streams=self.stats.open_streams,
            held=self.stats.held,
        )
        self.stats = fresh
        self.exchanges.clear()
        self.touch()

    def touch(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Return once `condition()` holds. Raises TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._changed.wait()

    def stats_json(self) -> Json:
        """The counts as JSON."""
        return dict(vars(self.stats))

    def requests_json(self, match: str = "") -> list[Json]:
        """The exchanges as JSON, oldest first, optionally only those that mention `match`."""
        found = [dict(vars(exchange)) for exchange in self.exchanges]
        return [exchange for exchange in found if match in str(exchange)]
