"""Packs: the order of every stream, what is acknowledged, and what goes by reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.packs import Entry, Flag, decode_pack
from contracts.topics import CLAIM_CHECK_BYTES
from services.kit.blobs.disk import DiskBlobs
from services.kit.producer import Headers, Producer
from services.kit.retry import Backoff
from services.worker.outbox import Outbox, OutStream

BIG = b"x" * (CLAIM_CHECK_BYTES + 1)


@dataclass
class Log(Producer):
    """Keeps packs per partition; fails `failures` times first, and waits while `open` is clear."""

    failures: int = 0
    packs: dict[int, list[bytes]] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)

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
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise KafkaTimeoutError
        self.packs.setdefault(partition or 0, []).append(value or b"")

    def entries(self, partition: int = 0) -> list[Entry]:
        return [entry for pack in self.packs.get(partition, []) for entry in decode_pack(pack)]

    def written(self, response_id: str) -> bytes:
        found = [e for e in self.entries() if e.response_id == response_id.encode()]
        assert [entry.index for entry in found] == list(range(len(found)))
        return b"".join(entry.payload for entry in found)


class Claims(DiskBlobs):
    """Keeps what goes by reference."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.kept: dict[str, bytes] = {}
        self.asked = 0
        self.hangs = False

    async def put(self, key: str, data: bytes, *, content_type: str) -> None:
        self.asked += 1
        if self.hangs and self.asked == 1:
            raise OSError("the object store does not answer in time")
        if self.hangs:
            await asyncio.Event().wait()
        self.kept[key] = data


class Sending:
    """An outbox in memory."""

    def __init__(self, *, failures: int = 0, bound: int = 1 << 24) -> None:
        self.log = Log(failures=failures)
        self.log.open.set()
        self.claims = Claims()
        self.fatal: list[BaseException] = []
        self.outbox = Outbox(
            self.log, self.claims, tick_seconds=0.0, bound_bytes=bound, on_fatal=self.fatal.append
        )

    def stream(self, response_id: str = "resp_1", *, partition: int = 0) -> OutStream:
        return self.outbox.open(response_id, attempt=1, partition=partition)


@asynccontextmanager
async def sending(*, failures: int = 0, bound: int = 1 << 24) -> AsyncIterator[Sending]:
    made = Sending(failures=failures, bound=bound)
    yield made
    await made.outbox.stop()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = Backoff(attempts=4, first_seconds=0.0, longest_seconds=0.0, within_seconds=0.5)
    monkeypatch.setattr("services.worker.outbox.TWO_MINUTES", backoff)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=30))
async def test_each_stream_keeps_its_order_whatever_happens_in_between(
    steps: list[tuple[int, int, bool]],
) -> None:
    async with sending() as made:
        streams = [made.stream(f"resp_{n}") for n in range(3)]
        wanted = [b"", b"", b""]
        for number, (which, yields, waits) in enumerate(steps):
            payload = b"data: %d\n\n" % number
            streams[which].write(payload)
            wanted[which] += payload
            for _ in range(yields):
                await asyncio.sleep(0)
            if waits:
                await streams[which].sent()
                assert made.log.written(f"resp_{which}") == wanted[which]
        for stream in streams:
            await stream.sent()
        assert [made.log.written(f"resp_{n}") for n in range(3)] == wanted


async def test_writes_of_one_tick_travel_in_one_pack_and_join() -> None:
    async with sending() as made:
        first, second = made.stream("resp_1"), made.stream("resp_2")
        first.write(b"a")
        second.write(b"b")
        first.write(b"c")
        await first.sent()
        await second.sent()
        assert len(made.log.packs[0]) == 1
        assert [(e.response_id, e.payload) for e in made.log.entries()] == [
            (b"resp_1", b"ac"),
            (b"resp_2", b"b"),
        ]


async def test_what_has_flags_or_a_status_stands_alone() -> None:
    async with sending() as made:
        stream = made.stream()
        stream.write(b"a")
        stream.write(b"{}", flags=Flag.JSON | Flag.LAST, status=400)
        await stream.sent()
        assert [(e.payload, e.flags, e.status, e.index) for e in made.log.entries()] == [
            (b"a", 0, 200, 0),
            (b"{}", Flag.JSON | Flag.LAST, 400, 1),
        ]


async def test_partitions_have_packs_of_their_own() -> None:
    async with sending() as made:
        for partition in (0, 5):
            stream = made.stream(partition=partition)
            stream.write(b"a")
            await stream.sent()
        assert sorted(made.log.packs) == [0, 5]


async def test_what_is_large_goes_by_reference_in_its_place() -> None:
    async with sending() as made:
        stream = made.stream()
        stream.write(b"before")
        stream.write(BIG)
        stream.write(b"{}", flags=Flag.LAST)
        await stream.sent()
        before, claim, last = made.log.entries()
        assert (before.payload, last.payload) == (b"before", b"{}")
        assert claim.flags == Flag.CLAIM
        assert made.claims.kept == {claim.payload.decode(): BIG}


async def test_many_small_writes_never_make_an_entry_that_is_too_large() -> None:
    async with sending() as made:
        stream = made.stream()
        for _ in range(40):
            stream.write(b"x" * 100_000)
        await stream.sent()
        assert max(len(entry.payload) for entry in made.log.entries()) <= CLAIM_CHECK_BYTES
        assert max(map(len, made.log.packs[0])) < 2 * 1024 * 1024
        assert made.claims.kept == {}
        assert len(made.log.written("resp_1")) == 40 * 100_000


async def test_a_pack_is_sent_again_until_it_is_acknowledged_and_order_holds() -> None:
    async with sending(failures=3) as made:
        stream = made.stream()
        stream.write(b"a")
        await asyncio.sleep(0)
        stream.write(b"b")
        await stream.sent()
        assert made.log.written("resp_1") == b"ab"
        assert made.fatal == []


async def test_a_pack_that_can_not_be_sent_is_fatal() -> None:
    async with sending(failures=9) as made:
        made.stream().write(b"a")
        async with asyncio.timeout(5):
            while not made.fatal:  # noqa: ASYNC110 - a callback sets no event
                await asyncio.sleep(0)
        assert isinstance(made.fatal[0], KafkaTimeoutError)


async def test_a_store_that_hangs_is_fatal_when_the_time_is_over() -> None:
    async with sending() as made:
        made.claims.hangs = True
        made.stream().write(BIG)
        async with asyncio.timeout(5):
            while not made.fatal:  # noqa: ASYNC110 - a callback sets no event
                await asyncio.sleep(0.01)
        assert isinstance(made.fatal[0], OSError)
        assert str(made.fatal[0]) == "the object store does not answer in time"
        assert made.claims.asked == 2


async def test_nothing_counts_as_sent_before_it_is_acknowledged() -> None:
    async with sending() as made:
        made.log.open.clear()
        stream = made.stream()
        stream.write(b"a")
        sent = asyncio.ensure_future(stream.sent())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not sent.done()
        made.log.open.set()
        await sent
        await made.stream("resp_2").sent()


async def test_a_queue_above_its_bound_makes_its_writers_wait() -> None:
    async with sending(bound=10) as made:
        made.log.open.clear()
        stream = made.stream()
        stream.write(b"first")
        for _ in range(3):
            await asyncio.sleep(0)
        stream.write(b"x" * 11)
        room = asyncio.ensure_future(stream.room())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not room.done()
        made.log.open.set()
        await room


async def test_a_stop_leaves_what_was_not_sent_to_the_next_owner() -> None:
    async with sending() as made:
        made.log.open.clear()
        made.stream().write(b"a")
        await asyncio.sleep(0)
    assert made.log.packs == {}


async def test_all_that_was_told_is_on_the_log_once_it_is_flushed() -> None:
    async with sending() as made:
        assert await made.outbox.flushed(seconds=0.01)
        made.log.open.clear()
        made.stream("resp_1").write(b"one")
        await asyncio.sleep(0)
        made.stream("resp_2").write(b"two")
        assert not await made.outbox.flushed(seconds=0.01)
        made.log.open.set()
        assert await made.outbox.flushed(seconds=5)
        assert (made.log.written("resp_1"), made.log.written("resp_2")) == (b"one", b"two")
        assert await made.outbox.flushed(seconds=0)
