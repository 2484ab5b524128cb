"""What an earlier attempt already told the client, read back from `responses.events`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from contracts.packs import Entry, Flag, PackError, decode_pack
from contracts.topics import RESPONSES_EVENTS
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.ids import created_ms
from services.kit.tail import read_range
from services.worker import sse
from services.worker.domain import TERMINAL_EVENTS, Job
from services.worker.errors import UpstreamError
from services.worker.runs.outcome import ESTIMATED, via_of
from services.worker.runs.output import OutputBuilder

logger = logging.getLogger(__name__)
_CLOCK_SLACK_MS = 60_000
_ESTIMATED = ESTIMATED.removesuffix(sse.END)


@dataclass
class Delivered:
    """The log's view of a response: `finished` is its Response object once the last entry is there.

    `error` is the message when the last entry is an error for a JSON client. `via` is the place of
    the provider that was asked last among those of the model. What follows upon the last entry was
    seen by nobody and changes nothing.
    """

    built: OutputBuilder = field(default_factory=OutputBuilder)
    skeleton: dict[str, Any] | None = None
    finished: dict[str, Any] | None = None
    error: str | None = None
    last_sequence_number: int | None = None
    ended: bool = False
    estimated: bool = False
    via: int = 0

    def feed(self, entry: Entry, payload: bytes) -> None:
        """Take one entry with its payload, claim check resolved."""
        if self.ended:
            return
        self.ended = bool(entry.flags & Flag.LAST)
        if entry.flags & Flag.JSON:
            body = orjson.loads(payload)
            # An object of the API, `response` mostly; an error has none.
            if "object" in body:
                self.finished = body
            else:
                self.error = str((body.get("error") or {}).get("message"))
            return
        for frame in sse.frames(payload):
            if (place := via_of(frame)) is not None:
                self.via = place
            self.estimated = self.estimated or frame == _ESTIMATED
            try:
                event = sse.parse(frame)
            except UpstreamError:
                # It was piped as it came and tells nothing.
                continue
            if event is None:
                continue
            self.built.feed(event)
            self.last_sequence_number = self.built.last_sequence_number
            response = event.get("response")
            if isinstance(response, dict):
                self.skeleton = self.skeleton or response
                if event.get("type") in TERMINAL_EVENTS:
                    self.finished = response

    def lose(self, entry: Entry) -> None:
        """Take an entry whose payload is gone: it was told, and nobody knows what it said."""
        self.ended = self.ended or bool(entry.flags & Flag.LAST)
        self.built.delivered = True


def _entries(pack: bytes) -> Iterator[Entry]:
    try:
        yield from decode_pack(pack)
    except PackError as error:
        # Its readers made it a dead letter: nobody was told what stands behind the damage.
        logger.warning("a damaged pack is passed over: %r", error)


async def delivered(
    bootstrap: str,
    blobs: BlobStore,
    *,
    response_id: str,
    partition: int,
    began_at: datetime | None = None,
) -> Delivered:
    """Return what all attempts so far have put on the log; raises `KafkaError`.

    The log is read from the time of the first attempt, or of the id when that is not known.
    """
    wanted = response_id.encode()
    seen = Delivered()
    attempt, index = 0, -1
    begin = created_ms(response_id) if began_at is None else int(began_at.timestamp() * 1000)
    since = (begin or _CLOCK_SLACK_MS) - _CLOCK_SLACK_MS
    async for records in read_range(
        bootstrap,
        topic=RESPONSES_EVENTS.name,
        partition=partition,
        since_ms=since,
    ):
        for record in records:
            value = record.value or b""
            if wanted not in value:
                continue
            for entry in _entries(value):
                if entry.response_id != wanted or (entry.attempt, entry.index) <= (attempt, index):
                    continue
                attempt, index = entry.attempt, entry.index
                payload = entry.payload
                if entry.flags & Flag.CLAIM:
                    try:
                        payload = await blobs.get(payload.decode())
                    except BlobMissingError as error:
                        # No further attempt would find it either.
                        logger.error("a part of %s is lost: %r", response_id, error)
                        seen.lose(entry)
                        continue
                seen.feed(entry, payload)
    return seen


class ReadBack:
    """Reads back what jobs told, `most` at once: each has a Kafka consumer of its own.

    A worker that died leaves all its responses to others at the same time. Those that can't be read
    yet wait in their order; their leases are renewed meanwhile.
    """

    def __init__(self, bootstrap: str, blobs: BlobStore, *, most: int) -> None:
        self._bootstrap = bootstrap
        self._blobs = blobs
        self._room = asyncio.Semaphore(most)

    async def __call__(self, job: Job) -> Delivered:
        """Return what all attempts so far have put on the log; raises `KafkaError`."""
        async with self._room:
            return await delivered(
                self._bootstrap,
                self._blobs,
                response_id=job.response_id,
                partition=job.command.events_partition,
                began_at=job.since,
            )
