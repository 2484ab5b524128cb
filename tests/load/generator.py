"""The load generator: a closed loop over many connections, run as a process of its own.

It reads a `Load` as JSON from its one argument and writes two lines of JSON: when its window
begins (monotonic seconds, the same clock for every process), and at the end what it counted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import secrets
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
import uvloop

from tests.load.checks import StreamCheck, WholeCheck, whole_events
from tests.load.client import Connection
from tests.load.templates import TEXT_BYTES, model_name
from tests.load.window import Reads, Window

INPUT_BYTES = 512
MOST_REQUESTS = 5_000_000
MOST_FAILURES = 100
"""A connection that failed this often gives up."""
RETRY_S = 0.05
RAMP_SHARE = 0.5
"""Connections start evenly over this part of the warm-up, so that paced streams don't march."""
_STATUS = re.compile(rb'"status":\s*"completed"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What to ask whom. `interval_ms` above 0 paces each stream's deltas in the upstream.

    `think_ms` is the mean pause of a connection before it asks again. Connections take turns
    with `base_url` and `more_urls`.
    """

    base_url: str
    api_key: str
    connections: int
    stream: bool
    warmup_s: float
    seconds: float
    deltas: int = 1
    interval_ms: int = 0
    think_ms: int = 0
    drain_s: float = 30.0
    more_urls: Sequence[str] = ()

    def addresses(self) -> list[tuple[str, int]]:
        """Give host and port of everyone who is asked."""
        urls = map(urllib.parse.urlsplit, (self.base_url, *self.more_urls))
        return [(url.hostname or "", url.port or 80) for url in urls]

    def request(self, token: int) -> bytes:
        """Give a whole HTTP request whose answer must repeat the token."""
        url = urllib.parse.urlsplit(self.base_url)
        model = model_name(deltas=self.deltas, interval_ms=self.interval_ms)
        text = f"token={token:010} ".ljust(INPUT_BYTES, ".")
        body = orjson.dumps({"model": model, "input": text, "stream": self.stream})
        head = (
            f"POST {url.path}/responses HTTP/1.1\r\nhost: {url.netloc}\r\n"
            f"authorization: Bearer {self.api_key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was finished within the window, and every error of the whole run."""

    requests: int = 0
    events: int = 0
    deltas: int = 0
    latency_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Give p50, p95 and p99 by nearest rank; None for no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = {name: -(-len(ordered) * name // 100) - 1 for name in (50, 95, 99)}
    return {f"p{name}": round(ordered[at], 3) for name, at in rank.items()}


class Generator:
    """Every connection asks again as soon as it was answered, until the window has ended."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._request = load.request(0)
        self._zero = b"token=%010d" % 0
        self._tokens = itertools.count(secrets.randbelow(9_000_000_000))
        self._left = MOST_REQUESTS
        self._addresses = load.addresses()
        self._check = WholeCheck(load.deltas)
        begin_s = time.monotonic() + load.warmup_s
        self.window = Window(begin_s, begin_s + load.seconds)
        self.tally = Tally()

    async def run(self) -> Tally:
        """Return after the window and the answers that were still open, which has a bound too."""
        load = self._load
        clients = [asyncio.create_task(self._client(n)) for n in range(load.connections)]
        bound_s = self.window.end_s - time.monotonic() + load.drain_s
        done, open_still = await asyncio.wait(clients, timeout=bound_s)
        for client in open_still:
            client.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)
        for client in done:
            client.result()
        if open_still:
            self.tally.errors["unfinished"] += len(open_still)
        return self.tally

    async def _client(self, number: int) -> None:
        load = self._load
        await asyncio.sleep(load.warmup_s * RAMP_SHARE * number / load.connections)
        connection: Connection | None = None
        address = self._addresses[number % len(self._addresses)]
        failures = 0
        while time.monotonic() < self.window.end_s and failures < MOST_FAILURES and self._left > 0:
            self._left -= 1
            try:
                if connection is None or not connection.is_open:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(Connection, *address)
                error = await self._ask(connection)
            except OSError as problem:
                error = type(problem).__name__
            if error is None and load.think_ms:
                await asyncio.sleep(load.think_ms / 1000 * random.uniform(0.5, 1.5))
            if error is not None:
                self.tally.errors[error] += 1
                failures += 1
                await asyncio.sleep(RETRY_S)
        if connection is not None:
            connection.close()

    async def _ask(self, connection: Connection) -> str | None:
        """Send one request and count it; return the name of what was wrong with the answer."""
        load, tally = self._load, self.tally
        token = next(self._tokens)
        request = self._request.replace(self._zero, b"token=%010d" % token)
        began_s = time.monotonic()
        if not load.stream:
            status = await connection.ask(request)
            ended_s, error = time.monotonic(), self._verdict(connection.body, token)
        elif load.interval_ms:
            check = StreamCheck(token, load.deltas)
            status = await connection.ask(request, on_data=partial(self._follow, check))
            ended_s, error = time.monotonic(), check.verdict()
        else:
            status, ended_s, error = await self._ask_whole(connection, request, token)
        if status != HTTPStatus.OK:
            return f"http_{status}"
        if error is None and self.window.holds(ended_s):
            tally.requests += 1
            tally.latency_ms.append((ended_s - began_s) * 1000)
        return error

    def _follow(self, check: StreamCheck, data: bytes) -> None:
        """Count events of a paced stream as they come, with the lag of each delta."""
        now_ns = time.monotonic_ns()
        events, sent = check.feed(data)
        if self.window.holds(now_ns / 1e9):
            self.tally.events += events
            self.tally.deltas += len(sent)
            self.tally.lag_ms.extend((now_ns - sent_ns) / 1e6 for sent_ns in sent)

    async def _ask_whole(
        self, connection: Connection, request: bytes, token: int
    ) -> tuple[int, float, str | None]:
        """Take an unpaced stream whole; count and check it at its end, however that is.

        Looking at each part as it comes costs more than all else that the generator does.
        """
        reads, counted = Reads(), None
        try:
            status = await connection.ask(request, reads=reads)
            ended_s, error = time.monotonic(), self._check.verdict(token, connection.body)
            if error is None and self.window.holds_all(reads):
                counted = whole_events(connection.body), self._load.deltas
        finally:
            events, deltas = counted or self.window.count(reads)
            self.tally.events += events
            self.tally.deltas += deltas
        return status, ended_s, error

    @staticmethod
    def _verdict(body: bytes, token: int) -> str | None:
        if _STATUS.search(body) is None:
            return "not_completed"
        text = (b"token=%010d" % token).ljust(TEXT_BYTES, b".")
        return None if text in body else "foreign_answer"


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.flush()


async def _main(load: Load) -> None:
    if load.stream and not load.interval_ms:
        # Nobody asks when a single delta was read, so that it need not interrupt others on its core
        # for each, and reads several at once. Its priority and its share stay the same.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    generator = Generator(load)
    _tell({"begin_s": generator.window.begin_s})
    tally = await generator.run()
    counts = {"requests": tally.requests, "events": tally.events, "deltas": tally.deltas}
    times = {"latency_ms": percentiles(tally.latency_ms), "lag_ms": percentiles(tally.lag_ms)}
    _tell({**counts, **times, "errors": dict(tally.errors)})


if __name__ == "__main__":
    uvloop.run(_main(Load(**orjson.loads(sys.argv[1]))))
