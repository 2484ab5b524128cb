"""The way out for stream bytes: one sender per partition puts all responses into packs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

from aiokafka.errors import KafkaError

from contracts.packs import Entry, Flag, encode_pack
from contracts.topics import CLAIM_CHECK_BYTES, RESPONSES_EVENTS
from services.kit.blobs.store import BlobStore
from services.kit.producer import Producer
from services.kit.retry import TWO_MINUTES, retry
from services.kit.tasks import TaskSet

_PACK_BYTES = 1024 * 1024
_MARK = b": taken over\n\n"

_Part = tuple[int, int, bytes]
SendPack = Callable[[bytes], Awaitable[None]]
StoreClaim = Callable[[str, bytes], Awaitable[None]]


class OutStream:
    """The bytes of one response on their way to its reader; writes never block."""

    def __init__(self, lane: _Lane, response_id: str, attempt: int) -> None:
        self._lane = lane
        self._id = response_id.encode()
        self._attempt = attempt
        self._index = 0
        self._parts: list[_Part] = []
        self._batch: _Batch | None = None

    def write(self, payload: bytes, *, flags: int = Flag.NONE, status: int = 200) -> None:
        """Queue whole events, or one payload with flags; the order of calls is kept."""
        if not self._parts:
            self._batch = self._lane.join(self)
        self._parts.append((flags, status, payload))
        self._lane.grow(len(payload), urgent=bool(flags & Flag.LAST))

    async def room(self) -> None:
        """Wait while the partition's queue is above its bound."""
        await self._lane.room()

    async def sent(self) -> None:
        """Return when everything written so far is acknowledged."""
        if self._batch is not None:
            await self._batch.acknowledged()

    async def fence(self) -> None:
        """Put this attempt's mark on the log: readers pass over what earlier ones write after it.

        What stands before the mark is all that clients will ever see of those.
        """
        self.write(_MARK)
        await self.sent()

    def take(self) -> list[Entry]:
        """Return what was written as entries, plain neighbours joined, and forget it."""
        parts, self._parts = self._parts, []
        if len(parts) == 1:
            flags, status, payload = parts[0]
            return [self._entry(payload, flags, status)]
        entries: list[Entry] = []
        joined: list[bytes] = []
        size = 0
        for flags, status, payload in parts:
            if joined and (flags or size + len(payload) > CLAIM_CHECK_BYTES):
                entries.append(self._entry(b"".join(joined), 0, 200))
                joined, size = [], 0
            if flags:
                entries.append(self._entry(payload, flags, status))
            else:
                joined.append(payload)
                size += len(payload)
        if joined:
            entries.append(self._entry(b"".join(joined), 0, 200))
        return entries

    def _entry(self, payload: bytes, flags: int, status: int) -> Entry:
        entry = Entry(self._id, self._attempt, self._index, payload, flags, status)
        self._index += 1
        return entry


class _Batch:
    """What goes out together. Each waits for a future of its own, so that any may be cancelled."""

    __slots__ = ("_waiting", "sent")

    def __init__(self) -> None:
        self.sent = False
        self._waiting: list[asyncio.Future[None]] = []

    def acknowledged(self) -> asyncio.Future[None]:
        """Return a future that is done once all of it is acknowledged."""
        waiter = asyncio.get_running_loop().create_future()
        if self.sent:
            waiter.set_result(None)
        else:
            self._waiting.append(waiter)
        return waiter

    def acknowledge(self) -> None:
        self.sent = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class _Lane:
    """One partition: what waits for the next pack, and the one task that sends it."""

    def __init__(
        self, send: SendPack, store: StoreClaim, *, tick_seconds: float, bound_bytes: int
    ) -> None:
        self._send = send
        self._store = store
        self._tick_seconds = tick_seconds
        self._bound_bytes = bound_bytes
        self._streams: list[OutStream] = []
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._last_sent = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._batch = _Batch()
        self._sending = self._batch

    def join(self, stream: OutStream) -> _Batch:
        self._streams.append(stream)
        return self._batch

    def grow(self, size: int, *, urgent: bool) -> None:
        """Note a write. The end of an answer does not wait for the tick: somebody waits for it."""
        self._bytes += size
        due = self._last_sent + self._tick_seconds
        if urgent or self._loop.time() >= due:
            self._wake.set()
        elif self._timer is None:
            self._timer = self._loop.call_at(due, self._wake.set)

    async def room(self) -> None:
        while self._bytes > self._bound_bytes:
            await self._batch.acknowledged()

    def last(self) -> asyncio.Future[None] | None:
        """Return the acknowledgement of all that was written so far, None when it is there."""
        if self._streams:
            return self._batch.acknowledged()
        if self._sending is self._batch or self._sending.sent:
            return None
        return self._sending.acknowledged()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._streams:
                continue
            self._last_sent = self._loop.time()
            streams, self._streams = self._streams, []
            batch, self._batch = self._batch, _Batch()
            self._sending = batch
            self._bytes = 0
            entries = [entry for stream in streams for entry in stream.take()]
            # Hardly any is large: the others shall not cost a coroutine each.
            small = [
                entry
                if len(entry.payload) <= CLAIM_CHECK_BYTES
                else await self._by_reference(entry)
                for entry in entries
            ]
            for pack in _packs(small):
                await self._send(pack)
            batch.acknowledge()

    async def _by_reference(self, entry: Entry) -> Entry:
        key = f"claims/{entry.response_id.decode()}-{entry.attempt}-{entry.index}"
        await self._store(key, entry.payload)
        return replace(entry, payload=key.encode(), flags=entry.flags | Flag.CLAIM)


def _packs(entries: Iterable[Entry]) -> Iterator[bytes]:
    waiting: list[Entry] = []
    size = 0
    for entry in entries:
        if waiting and size + len(entry.payload) > _PACK_BYTES:
            yield encode_pack(waiting)
            waiting, size = [], 0
        waiting.append(entry)
        size += len(entry.payload)
    if waiting:
        yield encode_pack(waiting)


class Outbox:
    """Opens streams; a pack goes out a tick after the last one, at once when that is longer ago.

    Payloads above 512 KiB go to the object store and the pack carries a claim check. A pack is sent
    again until it is acknowledged; when that fails for about two minutes the worker
    must end (`on_fatal`), since its streams would have a hole.
    """

    def __init__(
        self,
        producer: Producer,
        blobs: BlobStore,
        *,
        tick_seconds: float,
        bound_bytes: int,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._producer = producer
        self._blobs = blobs
        self._tick_seconds = tick_seconds
        self._bound_bytes = bound_bytes
        self._lanes: dict[int, _Lane] = {}
        self._tasks = TaskSet(on_fatal)

    async def start(self) -> None:
        """Do nothing: lanes are opened when a response first needs them."""

    async def stop(self) -> None:
        """Stop the senders; what was not acknowledged is the next owner's to send."""
        await self._tasks.stop()

    async def flushed(self, *, seconds: float) -> bool:
        """Wait until all that was written so far is acknowledged; False when it takes longer."""
        waiting = [last for lane in self._lanes.values() if (last := lane.last()) is not None]
        if not waiting:
            return True
        _, late = await asyncio.wait(waiting, timeout=seconds)
        return not late

    def open(self, response_id: str, *, attempt: int, partition: int) -> OutStream:
        """Return the stream of one attempt at a response to a partition of `responses.events`."""
        lane = self._lanes.get(partition)
        if lane is None:
            lane = _Lane(
                functools.partial(self._send, partition),
                self._store,
                tick_seconds=self._tick_seconds,
                bound_bytes=self._bound_bytes,
            )
            self._lanes[partition] = lane
            self._tasks.spawn(lane.run(), name=f"packs to partition {partition}")
        return OutStream(lane, response_id, attempt)

    async def _send(self, partition: int, pack: bytes) -> None:
        await self._insist(
            lambda: self._producer.send(RESPONSES_EVENTS.name, pack, partition=partition)
        )

    async def _store(self, key: str, payload: bytes) -> None:
        await self._insist(
            lambda: self._blobs.put(key, payload, content_type="application/octet-stream")
        )

    async def _insist(self, action: Callable[[], Awaitable[None]]) -> None:
        await retry(action, on=(KafkaError, OSError), backoff=TWO_MINUTES)
