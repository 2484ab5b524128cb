"""Use cases: keep the files of a response, forget them, list and open them; and what they need."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from opentelemetry import metrics

from contracts.responses import ResponseDeletedV1, ResponseFinishedV1
from services.artifacts.content_types import detect
from services.artifacts.domain import (
    Artifact,
    Found,
    Query,
    Refused,
    artifact_id,
    blob_key,
    default_filename,
    settled_kind,
)
from services.artifacts.errors import ArtifactNotFoundError
from services.artifacts.orphans import BlobTransaction, open_span, sweep_orphans
from services.artifacts.ranges import Span
from services.kit.blobs.store import BlobStore

logger = logging.getLogger(__name__)
GoneReason = Literal["response_deleted", "retention"]


class Transaction(BlobTransaction, Protocol):
    """Changes to the records that become visible together."""

    async def enter(self, response_id: str, attempt: int) -> bool:
        """Lock the response; False when it was deleted or a later attempt is on record."""
        ...

    async def bury(self, response_id: str, at: datetime) -> None:
        """Lock the response and mark it as deleted for good, also when it was never seen."""
        ...

    async def replace(
        self, response_id: str, artifacts: Sequence[Artifact], refusals: Sequence[Refused]
    ) -> list[Artifact]:
        """Make these the records of the response; return the artifacts that are gone by it.

        The blobs are locked. One that loses its last artifact becomes an orphan.
        """
        ...

    async def forget_deleted(self, before: datetime) -> None:
        """Drop the marks of responses that were deleted before that time."""
        ...


class Records(Protocol):
    """Where artifacts are on record."""

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction that commits at the end of the body, or is undone by its error."""
        ...

    async def find(self, artifact: str, *, project: str | None) -> Artifact | None:
        """Return one artifact of a project, or of any when it is None."""
        ...

    async def page(self, query: Query) -> list[Artifact]:
        """Return up to `limit` + 1 artifacts; raises `BadParameterError` for an unknown `after`."""
        ...


class Announcer(Protocol):
    """Tells the world; each method returns when the fact is durable. Facts repeat by their id."""

    async def stored(self, artifact: Artifact, *, traceparent: str | None) -> None:
        """Announce an artifact."""
        ...

    async def expired(
        self, artifact: Artifact, reason: GoneReason, *, traceparent: str | None
    ) -> None:
        """Announce that an artifact is gone."""
        ...


class Keeper:
    """Keeps and forgets. Every call may be repeated, in any order, also at the same time.

    Bytes are stored before the record that needs them, facts are sent before their transaction
    commits, and bytes are removed after it: a crash in between leaves nothing worse than an orphan,
    which the repetition clears away.
    """

    def __init__(
        self,
        records: Records,
        blobs: BlobStore,
        announcer: Announcer,
        *,
        remember_deleted: timedelta,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._announcer = announcer
        self._remember_deleted = remember_deleted
        meter = metrics.get_meter("antiphon")
        self._refused = meter.create_counter(
            "antiphon.artifacts.refused", description="Files in responses that were not kept"
        )
        self._uploaded = meter.create_counter(
            "antiphon.artifacts.uploaded", unit="By", description="Bytes of new, distinct contents"
        )

    async def keep(
        self,
        fact: ResponseFinishedV1,
        results: Sequence[Found | Refused],
        *,
        traceparent: str | None,
    ) -> list[Artifact]:
        """Record what was found in a response; nothing when it was deleted or has run again."""
        if not results and fact.attempt == 1:
            # No record can depend on this one: the lot of nearly every response.
            return []
        found = [result for result in results if isinstance(result, Found)]
        refusals = [result for result in results if isinstance(result, Refused)]
        self._report(fact, refusals)
        # Hashing megabytes would hold up the event loop.
        artifacts = await asyncio.to_thread(_artifacts, fact, found)
        contents = {
            artifact.sha256: result.content
            for artifact, result in zip(artifacts, found, strict=True)
        }
        async with self._records.begin() as transaction:
            if not await transaction.enter(fact.response_id, fact.attempt):
                return []
            # In one order everywhere, so that no two transactions wait for each other.
            for sha256 in sorted(contents):
                await self._store(transaction, sha256, contents[sha256])
            gone = await transaction.replace(fact.response_id, artifacts, refusals)
            for artifact in artifacts:
                await self._announcer.stored(artifact, traceparent=traceparent)
            for artifact in gone:
                await self._announcer.expired(artifact, "retention", traceparent=traceparent)
        if fact.attempt > 1:
            # It may have replaced what an earlier attempt left.
            await self.sweep()
        return artifacts

    def _report(self, fact: ResponseFinishedV1, refusals: Sequence[Refused]) -> None:
        for refusal in refusals:
            self._refused.add(1, {"reason": refusal.reason})
            logger.warning(
                "file %d of %s (item %s) is refused as %s: %s",
                refusal.position,
                fact.response_id,
                refusal.item_id,
                refusal.reason,
                refusal.detail,
            )

    async def _store(self, transaction: Transaction, sha256: str, content: bytes) -> None:
        if await transaction.lock_blob(sha256, len(content)):
            return
        # Served with the detected type of each artifact: the blob itself has none.
        await self._blobs.put(blob_key(sha256), content, content_type="application/octet-stream")
        await transaction.blob_stored(sha256)
        self._uploaded.add(len(content))

    async def forget(
        self, fact: ResponseDeletedV1, *, at: datetime, traceparent: str | None
    ) -> None:
        """Remove all that is kept of a response, and keep nothing of it when its end comes late."""
        async with self._records.begin() as transaction:
            await transaction.bury(fact.response_id, at)
            for artifact in await transaction.replace(fact.response_id, (), ()):
                await self._announcer.expired(artifact, "response_deleted", traceparent=traceparent)
            await transaction.forget_deleted(at - self._remember_deleted)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove the bytes that no artifact needs any more."""
        await sweep_orphans(self._records, self._blobs)


def _artifacts(fact: ResponseFinishedV1, files: Sequence[Found]) -> list[Artifact]:
    return [_artifact(fact, found) for found in files]


def _artifact(fact: ResponseFinishedV1, found: Found) -> Artifact:
    content_type, extension = detect(found.content)
    name = found.filename or default_filename(found.item_id, found.position, extension)
    return Artifact(
        id=artifact_id(fact.response_id, found.item_id, found.position),
        response_id=fact.response_id,
        item_id=found.item_id,
        position=found.position,
        principal=fact.principal,
        kind=settled_kind(found.kind, content_type),
        filename=name,
        content_type=content_type,
        size_bytes=len(found.content),
        sha256=hashlib.sha256(found.content).hexdigest(),
        created_at=fact.finished_at,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """Some artifacts, and whether there are more behind them."""

    artifacts: Sequence[Artifact]
    has_more: bool


class Library:
    """Shows what is kept; `project` of None sees all projects."""

    def __init__(self, records: Records, blobs: BlobStore) -> None:
        self._records = records
        self._blobs = blobs

    async def page(self, query: Query) -> Page:
        """Return a page of artifacts, newest first unless told otherwise.

        Raises `BadParameterError` when `after` names no artifact that the caller may see.
        """
        found = await self._records.page(query)
        return Page(found[: query.limit], has_more=len(found) > query.limit)

    async def find(self, artifact: str, *, project: str | None) -> Artifact:
        """Return one artifact; raises `ArtifactNotFoundError`."""
        found = await self._records.find(artifact, project=project)
        if found is None:
            raise ArtifactNotFoundError(artifact)
        return found

    async def open(self, artifact: Artifact, span: Span) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a span as a generator whose store has already answered.

        Whoever stops early closes it. Raises `ArtifactNotFoundError` when the artifact was deleted
        meanwhile, `ContentLostError` when the store has no such bytes, and `OSError` when it fails.
        """

        async def still_there() -> None:
            await self.find(artifact.id, project=None)

        return await open_span(
            self._blobs, artifact.sha256, span, owner=artifact.id, check=still_there
        )
