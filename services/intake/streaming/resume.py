"""Streams again: from the log while it has the events, else told anew from the stored response."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import orjson

from contracts.packs import Entry, Flag, PackError, decode_pack
from contracts.topics import RESPONSES_EVENTS
from services.intake.domain import StoredResponse
from services.intake.streaming.followers import HEARTBEAT, Follower
from services.intake.streaming.hubs import Hub, Hubs
from services.intake.streaming.log_reads import LogRead, LogReads
from services.intake.streaming.retelling import retell
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.ids import created_ms
from services.kit.tail import read_range

logger = logging.getLogger(__name__)
_NUMBER = re.compile(rb'"sequence_number":\s*(\d+)')
_END = b"\n\n"
_CLOCK_SLACK_MS = 60_000


class Resumer:
    """Gives any stored stream to any reader, from any event on.

    `reads` bounds how many read the log at once; who follows what comes has left it.
    """

    def __init__(
        self,
        hubs: Hubs,
        blobs: BlobStore,
        reads: LogReads,
        *,
        bootstrap: str,
        buffer_bytes: int,
    ) -> None:
        self.reads = reads
        self._hubs = hubs
        self._blobs = blobs
        self._bootstrap = bootstrap
        self._buffer_bytes = buffer_bytes

    async def events(
        self, row: StoredResponse, *, after: int, read: LogRead
    ) -> AsyncGenerator[bytes, None]:
        """Yield blocks of whole SSE events with numbers above `after`, each number once.

        Heartbeats come in between while the response is still running. `read` is given back once
        the log was read. Raises `SlowReaderError`, and `DrainedError` when this process stops.
        """
        tell = self._running if row.response is None else self._finished
        try:
            async with aclosing(tell(row, after, read)) as told:
                async for block in told:
                    yield block
        finally:
            read.done()

    async def last(self, row: StoredResponse) -> Entry | None:
        """Return the last entry of a response, once it has ended; its payload may be a claim check.

        None when it has ended and the log does not have it any more. Raises `DrainedError`, and
        `ApiError` (503) when too many read the log.
        """
        read = await self.reads.begin()
        try:
            return await self._last(row, read)
        finally:
            read.done()

    async def _last(self, row: StoredResponse, read: LogRead) -> Entry | None:
        if row.response is not None:
            async with aclosing(self._on_log(row, end_offset=None)) as entries:
                async for entry in entries:
                    if entry.flags & Flag.LAST:
                        return entry
            return None
        hub = await self._hubs.of(row.events_partition)
        follower = Follower(row.response_id, limit_bytes=self._buffer_bytes)
        hub.add(follower)
        try:
            async with aclosing(self._joined(row, hub, follower, read)) as entries:
                async for entry in entries:
                    if entry.flags & Flag.LAST:
                        return entry
        finally:
            hub.remove(follower)
        return None

    async def _finished(
        self, row: StoredResponse, after: int, read: LogRead
    ) -> AsyncGenerator[bytes, None]:
        sent = after
        async with aclosing(self._on_log(row, end_offset=None)) as entries:
            first = True
            async for entry in entries:
                try:
                    payload = await self._payload(entry)
                except BlobMissingError:
                    break
                if first and not _starts(payload, after):
                    if payload.startswith(b":"):
                        # What attempts note for each other may come before any event.
                        continue
                    break
                first = False
                for block, number in _blocks(payload, sent):
                    sent = number
                    yield block
                if entry.flags & Flag.LAST:
                    return
        read.done()
        response = orjson.loads(row.response or b"{}")
        for block, number in retell(response, row.last_sequence_number, whole=sent < 0):
            if number > sent:
                yield block

    async def _running(
        self, row: StoredResponse, after: int, read: LogRead
    ) -> AsyncGenerator[bytes, None]:
        hub = await self._hubs.of(row.events_partition)
        follower = Follower(row.response_id, limit_bytes=self._buffer_bytes)
        hub.add(follower)
        sent = after
        try:
            async for entry in self._joined(row, hub, follower, read):
                for block, number in _blocks(await self._payload(entry), sent):
                    sent = number
                    yield block
                if entry.flags & Flag.LAST:
                    return
        finally:
            hub.remove(follower)

    async def _joined(
        self, row: StoredResponse, hub: Hub, follower: Follower, read: LogRead
    ) -> AsyncGenerator[Entry, None]:
        """Yield what stands on the log, then what comes; the follower must be with the hub."""
        place = (0, -1)
        async with aclosing(self._on_log(row, end_offset=hub.next_offset)) as entries:
            async for entry in entries:
                place = (entry.attempt, entry.index)
                yield entry
        read.done()
        while True:
            for entry in await follower.take():
                # An attempt that the log has shut out may still write.
                if (entry.attempt, entry.index) > place or entry.payload is HEARTBEAT:
                    yield entry

    async def _on_log(
        self, row: StoredResponse, *, end_offset: int | None
    ) -> AsyncGenerator[Entry, None]:
        wanted = row.response_id.encode()
        seen = (0, -1)
        since = (created_ms(row.response_id) or _CLOCK_SLACK_MS) - _CLOCK_SLACK_MS
        ranges = read_range(
            self._bootstrap,
            topic=RESPONSES_EVENTS.name,
            partition=row.events_partition,
            since_ms=since,
            end_offset=end_offset,
        )
        async with aclosing(ranges):
            async for records in ranges:
                for record in records:
                    for entry in _entries(record.value or b"", wanted):
                        place = (entry.attempt, entry.index)
                        if place > seen:
                            seen = place
                            yield entry

    async def _payload(self, entry: Entry) -> bytes:
        if entry.flags & Flag.JSON:
            return b""
        if entry.flags & Flag.CLAIM:
            return await self._blobs.get(entry.payload.decode())
        return entry.payload


def _entries(pack: bytes, wanted: bytes) -> Iterator[Entry]:
    if wanted not in pack:
        return
    try:
        for entry in decode_pack(pack):
            if entry.response_id == wanted:
                yield entry
    except PackError as error:
        # The hubs made it a dead letter: no reader was told what stands behind the damage.
        logger.warning("a damaged pack is passed over: %r", error)


def _blocks(payload: bytes, sent: int) -> Iterator[tuple[bytes, int]]:
    """Yield the comments and the events above `sent`, each with the last number sent with it."""
    for frame in payload.split(_END):
        found = _NUMBER.search(frame)
        if found is None:
            if frame.startswith(b":"):
                yield frame + _END, sent
            continue
        number = int(found.group(1))
        if number > sent:
            sent = number
            yield frame + _END, number


def _starts(payload: bytes, after: int) -> bool:
    """Whether the log still has what follows event `after`: its first entry begins early enough."""
    found = _NUMBER.search(payload)
    return found is not None and int(found.group(1)) <= after + 1
