"""Live answers: the tail of this replica's partition, and who waits for what on it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from contracts.packs import Entry, Flag, decode_pack
from contracts.topics import RESPONSES_EVENTS
from services.kit.deadletters import DeadLetters, Record
from services.kit.tail import Tail

logger = logging.getLogger(__name__)
HEARTBEAT = b": heartbeat\n\n"


class SlowReaderError(Exception):
    """A client read so slowly that its buffer reached the bound; it may resume."""


class DrainedError(Exception):
    """This process stops and the response goes on; its reader may resume at another."""


@dataclass(slots=True)
class _Fence:
    """The newest (attempt, index) seen: older attempts and repeated packs are dropped."""

    attempt: int = 0
    index: int = -1

    def admits(self, entry: Entry) -> bool:
        if (entry.attempt, entry.index) <= (self.attempt, self.index):
            return False
        self.attempt, self.index = entry.attempt, entry.index
        return True


class Buffers:
    """What all followers of a process hold; above `limit_bytes` those go that hold the most."""

    __slots__ = ("_limit_bytes", "bytes", "readers")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.bytes = 0
        self.readers = 0

    def crowded_by(self, held: int) -> bool:
        """Whether there is too much, and a follower that would hold so much has more than most."""
        return self.bytes > self._limit_bytes and held * self.readers > self._limit_bytes


_UNBOUNDED = 1 << 62


class Follower:
    """One reader of one response. `next` gives entries in order; the buffer is bounded in bytes."""

    def __init__(self, response_id: str, *, limit_bytes: int) -> None:
        self.buffers = Buffers(_UNBOUNDED)
        self.response_id = response_id.encode()
        self._limit_bytes = limit_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._fence = _Fence()
        self._waiter: asyncio.Future[None] | None = None
        self._overflowed = False
        self._complete = False
        self._left = False
        self._drained = False

    def push(self, entry: Entry) -> None:
        """Take an entry from the tail; called for each once, never blocks.

        Nothing follows the last one: the mark of an attempt that found it there is nobody's.
        """
        if self._complete or not self._fence.admits(entry):
            return
        size = len(entry.payload)
        held = self._bytes + size
        if self._entries and (held > self._limit_bytes or self.buffers.crowded_by(held)):
            self._overflowed = self._complete = True
            # The reader may stay stuck for long: nothing is held for it meanwhile.
            self.drop()
        else:
            self._entries.append(entry)
            self._bytes = held
            self.buffers.bytes += size
            if entry.flags & Flag.LAST:
                self._complete = True
        self._wake()

    def drop(self) -> None:
        """Let go of what nobody took."""
        self._entries.clear()
        self.buffers.bytes -= self._bytes
        self._bytes = 0

    def beat(self) -> None:
        """Queue a heartbeat when nothing else is there to keep the connection alive."""
        if not self._entries and not self._overflowed:
            self._entries.append(Entry(self.response_id, 0, 0, HEARTBEAT))
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """End the wait of a reader that will not read on: its `take` returns nothing."""
        self._left = True
        self._wake()

    def drain(self) -> None:
        """Let the reader have what is here, and then know that this process stops."""
        self._drained = True
        self._wake()

    async def take(self) -> list[Entry]:
        """Return everything that has come since; waits for at least one entry.

        Raises `SlowReaderError` once the buffer went over its bound, `DrainedError` when nothing
        more will come here.
        """
        while not (self._entries or self._left or self._overflowed or self._drained):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._overflowed:
            raise SlowReaderError
        if self._drained and not (self._entries or self._left):
            raise DrainedError
        entries = list(self._entries)
        self.drop()
        return entries


class Hub:
    """Splits the packs of one partition and hands each entry to the followers of its response."""

    def __init__(
        self,
        bootstrap: str,
        *,
        partition: int,
        dead_letters: DeadLetters,
        buffers: Buffers | None = None,
    ) -> None:
        self.partition = partition
        self._buffers = buffers or Buffers(_UNBOUNDED)
        self._followers: dict[bytes, list[Follower]] = {}
        self._drained = False
        self.tail = Tail(
            bootstrap,
            topic=RESPONSES_EVENTS.name,
            partitions=[partition],
            on_record=self._split,
            dead_letters=dead_letters,
        )

    async def start(self) -> None:
        """Follow from now on."""
        await self.tail.start()

    async def stop(self) -> None:
        """Stop following."""
        await self.tail.stop()

    @property
    def next_offset(self) -> int:
        """The offset up to which every entry has been handed out."""
        return self.tail.next_offsets[self.partition]

    @property
    def followers(self) -> int:
        """How many responses are followed."""
        return len(self._followers)

    def add(self, follower: Follower) -> None:
        """Hand the follower every entry of its response from now on."""
        follower.buffers = self._buffers
        self._buffers.readers += 1
        self._followers.setdefault(follower.response_id, []).append(follower)
        if self._drained:
            follower.drain()

    def drain(self) -> None:
        """Let every reader go, those that come later too."""
        self._drained = True
        for followers in self._followers.values():
            for follower in followers:
                follower.drain()

    def remove(self, follower: Follower) -> None:
        """Forget the follower; does nothing when it is not there."""
        others = self._followers.get(follower.response_id)
        if others is None:
            return
        if follower in others:
            others.remove(follower)
            self._buffers.readers -= 1
            follower.drop()
            # What a reader that is late still gets is its own.
            follower.buffers = Buffers(_UNBOUNDED)
        if not others:
            del self._followers[follower.response_id]

    def beat(self) -> None:
        """Give every follower a sign of life."""
        for followers in self._followers.values():
            for follower in followers:
                follower.beat()

    def _split(self, record: Record) -> None:
        followers = self._followers
        for entry in decode_pack(record.value or b""):
            for follower in followers.get(entry.response_id, ()):
                follower.push(entry)


def is_last(entry: Entry) -> bool:
    """Whether nothing follows this entry."""
    return bool(entry.flags & Flag.LAST)


class Hubs:
    """The hub of this replica's own partition, and others while a resumed stream needs them."""

    def __init__(
        self,
        bootstrap: str,
        *,
        own_partition: int,
        dead_letters: DeadLetters,
        heartbeat_seconds: float,
        buffered_bytes: int = _UNBOUNDED,
    ) -> None:
        self._bootstrap = bootstrap
        self._buffers = Buffers(buffered_bytes)
        self._dead_letters = dead_letters
        self._heartbeat_seconds = heartbeat_seconds
        self.own = self._hub(own_partition)
        self._others: dict[int, Hub] = {}
        self._drained = False
        self._lock = asyncio.Lock()
        self._beats: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Follow this replica's own partition."""
        await self.own.start()
        self._beats = asyncio.create_task(self._keep(), name="heartbeats")

    async def stop(self) -> None:
        """Stop following all partitions."""
        if self._beats is not None:
            self._beats.cancel()
        for hub in (self.own, *self._others.values()):
            await hub.stop()

    def drain(self) -> None:
        """Let every reader go: this process stops, and another goes on with their responses."""
        self._drained = True
        for hub in (self.own, *self._others.values()):
            hub.drain()

    def _hub(self, partition: int) -> Hub:
        return Hub(
            self._bootstrap,
            partition=partition,
            dead_letters=self._dead_letters,
            buffers=self._buffers,
        )

    async def of(self, partition: int) -> Hub:
        """Return the hub of a partition, following it from now on if nobody has."""
        if partition == self.own.partition:
            return self.own
        async with self._lock:
            hub = self._others.get(partition)
            if hub is None:
                hub = self._hub(partition)
                await hub.start()
                if self._drained:
                    hub.drain()
                self._others[partition] = hub
            return hub

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            self.own.beat()
            for partition, hub in list(self._others.items()):
                hub.beat()
                if hub.followers == 0:
                    del self._others[partition]
                    await self._let_go(hub)

    async def _let_go(self, hub: Hub) -> None:
        try:
            await hub.stop()
        except KafkaError as error:
            # Heartbeats must go on whatever becomes of a hub that nobody needs.
            logger.warning("a hub did not stop cleanly: %r", error)
