"""Streams again: from the log while it has the events, else told anew from the stored response."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import orjson

from contracts.packs import Entry, Flag, decode_pack
from contracts.topics import RESPONSES_EVENTS
from services.intake.domain import StoredResponse
from services.intake.retelling import retell
from services.intake.streams import Follower, Hubs
from services.kit.blobs import BlobStore
from services.kit.ids import created_ms
from services.kit.tail import read_range

_NUMBER = re.compile(rb'"sequence_number":\s*(\d+)')
_END = b"\n\n"
_CLOCK_SLACK_MS = 60_000


class Resumer:
    """Gives any stored stream to any reader, from any event on."""

    def __init__(self, hubs: Hubs, blobs: BlobStore, *, bootstrap: str, buffer_bytes: int) -> None:
        self._hubs = hubs
        self._blobs = blobs
        self._bootstrap = bootstrap
        self._buffer_bytes = buffer_bytes

    async def events(self, row: StoredResponse, *, after: int) -> AsyncIterator[bytes]:
        """Yield blocks of whole SSE events with numbers above `after`, each number once.

        Heartbeats come in between while the response is still running. Raises `SlowReaderError`.
        """
        sent = after
        if row.response is None:
            async for block, _ in self._running(row, after):
                yield block
            return
        first = True
        async for entry in self._on_log(row, end_offset=None):
            if first and not _starts(entry, after):
                break
            first = False
            async for block, number in self._blocks(entry, sent):
                sent = number
                yield block
            if entry.flags & Flag.LAST:
                return
        for block, number in retell(orjson.loads(row.response), row.last_sequence_number):
            if number > sent:
                yield block

    async def _running(self, row: StoredResponse, after: int) -> AsyncIterator[tuple[bytes, int]]:
        hub = await self._hubs.of(row.events_partition)
        follower = Follower(row.response_id, limit_bytes=self._buffer_bytes)
        hub.add(follower)
        sent = after
        try:
            async for entry in self._on_log(row, end_offset=hub.next_offset):
                async for block, number in self._blocks(entry, sent):
                    sent = number
                    yield block, number
                if entry.flags & Flag.LAST:
                    return
            while True:
                for entry in await follower.take():
                    async for block, number in self._blocks(entry, sent):
                        sent = number
                        yield block, number
                    if entry.flags & Flag.LAST:
                        return
        finally:
            hub.remove(follower)

    async def _on_log(self, row: StoredResponse, *, end_offset: int | None) -> AsyncIterator[Entry]:
        wanted = row.response_id.encode()
        seen = (0, -1)
        since = (created_ms(row.response_id) or _CLOCK_SLACK_MS) - _CLOCK_SLACK_MS
        async for records in read_range(
            self._bootstrap,
            topic=RESPONSES_EVENTS.name,
            partition=row.events_partition,
            since_ms=since,
            end_offset=end_offset,
        ):
            for record in records:
                if wanted not in (record.value or b""):
                    continue
                for entry in decode_pack(record.value or b""):
                    place = (entry.attempt, entry.index)
                    if entry.response_id == wanted and place > seen:
                        seen = place
                        yield entry

    async def _blocks(self, entry: Entry, sent: int) -> AsyncIterator[tuple[bytes, int]]:
        payload = entry.payload
        if entry.flags & Flag.CLAIM:
            payload = await self._blobs.get(payload.decode())
        if entry.flags & Flag.JSON:
            return
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


def _starts(entry: Entry, after: int) -> bool:
    """Whether the log still has what follows event `after`: its first entry begins early enough."""
    found = _NUMBER.search(entry.payload)
    return bool(entry.flags & Flag.CLAIM) or (
        found is not None and int(found.group(1)) <= after + 1
    )
