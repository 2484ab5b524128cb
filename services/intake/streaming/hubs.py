"""The tails of `responses.events`: what each brings is handed to the followers of its partition."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.errors import KafkaError

from contracts.packs import decode_pack
from contracts.topics import RESPONSES_EVENTS
from services.intake.streaming.followers import UNBOUNDED, Buffers, Follower
from services.kit.deadletters import DeadLetters, Record
from services.kit.tail import Tail

logger = logging.getLogger(__name__)


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
        self._buffers = buffers or Buffers(UNBOUNDED)
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
            follower.buffers = Buffers(UNBOUNDED)
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


class Hubs:
    """The hub of this replica's own partition, and others while a resumed stream needs them."""

    def __init__(
        self,
        bootstrap: str,
        *,
        own_partition: int,
        dead_letters: DeadLetters,
        heartbeat_seconds: float,
        buffered_bytes: int = UNBOUNDED,
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
