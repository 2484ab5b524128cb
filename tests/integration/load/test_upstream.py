"""The upstream speaks the Responses API, and the generator counts what it got from it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from openai import AsyncOpenAI

from tests.load.generator import Generator, Load, Tally
from tests.load.rounds import Rounds
from tests.load.runner import generating
from tests.load.templates import model_name
from tests.load.upstream import HOST, Connection, serve

MODEL = model_name(deltas=5, interval_ms=0)
INPUT = "token=0000000042 hello"


@pytest.fixture(scope="module")
async def base_url() -> AsyncIterator[str]:
    server = await serve(0)
    yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


@pytest.fixture(scope="module")
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=base_url, api_key="key", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


def short_load(base_url: str, *, stream: bool, interval_ms: int = 0) -> Load:
    return Load(
        base_url=base_url,
        api_key="key",
        connections=3,
        stream=stream,
        warmup_s=0.02,
        seconds=0.2,
        deltas=5,
        interval_ms=interval_ms,
        drain_s=5,
    )


async def generate(base_url: str, *, stream: bool, interval_ms: int = 0) -> Tally:
    return await Generator(short_load(base_url, stream=stream, interval_ms=interval_ms)).run()


async def test_an_answer_has_the_request_s_token_and_the_shape_of_the_api(
    client: AsyncOpenAI,
) -> None:
    answer = await client.responses.create(model=MODEL, input=INPUT)
    assert answer.status == "completed"
    assert answer.output_text.startswith("token=0000000042.")
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5


async def test_a_stream_has_the_events_and_numbers_of_the_api(client: AsyncOpenAI) -> None:
    events = [
        event
        async for event in await client.responses.create(model=MODEL, input=INPUT, stream=True)
    ]
    assert [event.sequence_number for event in events] == list(range(4 + 5 + 4))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [text.split()[:2] for text in deltas] == [["0000000042", str(n)] for n in range(5)]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "".join(deltas)


async def test_the_generator_counts_checked_answers(base_url: str) -> None:
    tally = await generate(base_url, stream=False)
    assert tally.requests == len(tally.latency_ms) > 0
    assert tally.events == 0
    assert not tally.errors


async def test_the_generator_counts_the_events_of_streams(base_url: str) -> None:
    tally = await generate(base_url, stream=True)
    assert tally.requests > 0
    assert tally.events > tally.deltas > 0
    assert not tally.lag_ms
    assert not tally.errors


async def test_paced_streams_give_a_lag_for_every_delta(base_url: str) -> None:
    tally = await generate(base_url, stream=True, interval_ms=2)
    assert len(tally.lag_ms) == tally.deltas > 0
    assert min(tally.lag_ms) >= 0
    assert not tally.errors


@pytest.mark.parametrize("interval_ms", [0, 2])
async def test_the_generator_as_a_process_tells_its_window_and_what_it_counted(
    base_url: str, interval_ms: int
) -> None:
    load = short_load(base_url, stream=True, interval_ms=interval_ms)
    async with generating(load) as generator:
        await generator.begin()
        await generator.end()
        counted = await generator.counted()
    assert counted["errors"] == {}
    assert counted["deltas"] > counted["requests"] > 0
    assert (counted["lag_ms"] is not None) == bool(interval_ms)


async def test_connections_take_turns_with_all_addresses(base_url: str) -> None:
    answered, rounds = itertools.count(), Rounds()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answered, rounds), HOST, 0)
    load = Load(
        base_url=base_url,
        more_urls=[f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"],
        api_key="key",
        connections=3,
        stream=False,
        warmup_s=0.02,
        seconds=0.2,
    )
    try:
        tally = await Generator(load).run()
    finally:
        server.close()
    assert not tally.errors
    assert 0 < next(answered) < tally.requests


class Refusing(Connection):
    """Knows no path at all."""

    def on_url(self, url: bytes) -> None:
        super().on_url(b"/nowhere" + url)


class Truncating(Connection):
    """Hangs up before the end of every stream."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        self._write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndata: {")
        self.hang_up()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio's own protocols do so too
        super().connection_made(transport)
        self.hang_up = transport.close


class Losing(Connection):
    """Leaves a delta out."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        head, first, _lost, *others = writes
        super()._stream(iter([head, first, *others]))


class Doubling(Connection):
    """Sends a delta twice."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        head, first, *others = writes
        super()._stream(iter([head, first, first, *others]))


class Mixing(Connection):
    """Sends a delta before its turn."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        head, first, second, *others = writes
        super()._stream(iter([head, second, first, *others]))


class Confusing(Connection):
    """Sends a delta of somebody else."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        *others, delta, tail = writes
        super()._stream(iter([*others, re.sub(rb'"\d{10} ', b'"9999999999 ', delta), tail]))


class Forgetting(Connection):
    """Ends the answer without the events of the end."""

    def _stream(self, writes: Iterator[bytes]) -> None:
        *others, _tail = writes
        super()._stream(iter([*others, b"0\r\n\r\n"]))


@pytest.mark.parametrize(
    ("kind", "stream", "error"),
    [
        (Refusing, False, "http_404"),
        (Refusing, True, "http_404"),
        (Truncating, True, "ConnectionResetError"),
        (Losing, True, "delta_order"),
        (Doubling, True, "delta_order"),
        (Mixing, True, "delta_order"),
        (Confusing, True, "foreign_delta"),
        (Forgetting, True, "not_completed"),
    ],
)
async def test_wrong_answers_are_counted_as_errors(
    kind: Callable[..., Connection], stream: bool, error: str
) -> None:
    numbers, rounds = itertools.count(), Rounds()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(numbers, rounds), HOST, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        tally = await generate(f"http://{HOST}:{port}/v1", stream=stream)
    finally:
        server.close()
    assert set(tally.errors) == {error}
    assert tally.requests == 0
