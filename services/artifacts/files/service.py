"""Use cases: take an upload, list, read and delete files, tell intake where their bytes are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from opentelemetry import metrics

from services.artifacts.domain import blob_key
from services.artifacts.files.domain import (
    File,
    FileBegins,
    FileQuery,
    FormField,
    FormPart,
    Terms,
    UploadLimits,
)
from services.artifacts.files.errors import BusyError, no_such_file
from services.artifacts.files.pieces import UPLOADS, Pieces
from services.artifacts.orphans import BlobTransaction, open_span, sweep_orphans
from services.artifacts.ranges import Span
from services.kit.blobs.store import BlobStore
from services.kit.clock import Clock
from services.kit.ids import uuid7_hex

logger = logging.getLogger(__name__)
_JOINS_AT_ONCE = 3
_SWEEP_BATCH = 100
_ABANDONED = timedelta(days=1)


class FileTransaction(BlobTransaction, Protocol):
    """Changes to the records of files that become visible together."""

    async def add(self, file: File) -> None:
        """Record a file whose blob is locked and stored."""
        ...

    async def remove(self, file_id: str, *, project: str, now: datetime) -> bool:
        """Remove a file that has not expired; a blob that loses its last owner is an orphan."""
        ...

    async def remove_expired(self, now: datetime, *, limit: int) -> int:
        """Remove files whose time is over, up to `limit`; return how many."""
        ...


class FileRecords(Protocol):
    """Where files are on record. A file whose time is over is not there for anybody."""

    def begin(self) -> AbstractAsyncContextManager[FileTransaction]:
        """Open a transaction that commits at the end of the body, or is undone by its error."""
        ...

    async def find(self, ids: Sequence[str], *, project: str, now: datetime) -> list[File]:
        """Return those of the files that the project has, in any order."""
        ...

    async def page(self, query: FileQuery, *, now: datetime) -> list[File]:
        """Return up to `limit` + 1 files; raises `FilesError` for an unknown `after`."""
        ...


@dataclass(frozen=True, slots=True)
class FilePage:
    """Some files, and whether there are more behind them."""

    files: Sequence[File]
    has_more: bool


class Files:
    """What a project can do with its files."""

    def __init__(
        self, records: FileRecords, blobs: BlobStore, clock: Clock, *, limits: UploadLimits
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._clock = clock
        self.limits = limits
        self._joins = asyncio.Semaphore(_JOINS_AT_ONCE)
        self._open = 0
        self._uploaded = metrics.get_meter("antiphon").create_counter(
            "antiphon.files.uploaded", unit="By", description="Bytes of files that clients uploaded"
        )

    async def add(self, form: AsyncIterator[FormPart], *, project: str, key_id: str) -> File:
        """Take an upload to its end; the file is durable when this returns.

        Raises `FilesError`, `OSError` when the store fails, and what `form` raises.
        """
        if self._open >= self.limits.max_open:
            raise BusyError
        self._open += 1
        pieces = Pieces(self._blobs, max_bytes=self.limits.max_bytes)
        terms = Terms()
        try:
            async for part in form:
                if isinstance(part, FormField):
                    terms.take(part)
                elif isinstance(part, FileBegins):
                    terms.begin(part)
                else:
                    await pieces.write(part)
            file = self._file(terms, pieces, project=project, key_id=key_id)
            # Each holds a connection while the store joins pieces: others need some, too.
            async with self._joins:
                await self._keep(file, pieces)
        finally:
            self._open -= 1
            await self._let_go(pieces)
        self._uploaded.add(file.size_bytes)
        return file

    def _file(self, terms: Terms, pieces: Pieces, *, project: str, key_id: str) -> File:
        now = self._clock.now()
        name, purpose, expires_at = terms.settled(
            now, batch_files_expire=self.limits.batch_files_expire
        )
        return File(
            id=f"file-{uuid7_hex()}",
            project=project,
            key_id=key_id,
            purpose=purpose,
            filename=name,
            content_type=pieces.content_type(),
            size_bytes=pieces.size_bytes,
            sha256=pieces.sha256,
            created_at=now,
            expires_at=expires_at,
        )

    async def _keep(self, file: File, pieces: Pieces) -> None:
        async with self._records.begin() as transaction:
            # On record before it is stored: what a crash leaves behind is an orphan to be swept.
            await transaction.lock_blob(file.sha256, file.size_bytes)
        async with self._records.begin() as transaction:
            if not await transaction.lock_blob(file.sha256, file.size_bytes):
                await pieces.store(blob_key(file.sha256))
                await transaction.blob_stored(file.sha256)
            await transaction.add(file)

    async def _let_go(self, pieces: Pieces) -> None:
        try:
            await pieces.discard()
        except OSError as error:
            logger.warning("pieces of an upload stay until they are swept: %r", error)

    async def page(self, query: FileQuery) -> FilePage:
        """Return a page of files; raises `FilesError` (400) when `after` names none."""
        found = await self._records.page(query, now=self._clock.now())
        return FilePage(found[: query.limit], has_more=len(found) > query.limit)

    async def find(self, file_id: str, *, project: str) -> File:
        """Return one file; raises `FilesError` (404)."""
        for file in await self.named([file_id], project=project):
            return file
        raise no_such_file(file_id)

    async def named(self, ids: Sequence[str], *, project: str) -> list[File]:
        """Return those of the files that the project has, in any order."""
        return await self._records.find(ids, project=project, now=self._clock.now())

    async def open(self, file: File, span: Span) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a span; raises `FilesError` (404), `OSError` and `ContentLostError`.

        The store has answered already. Whoever stops early closes the generator.
        """

        async def still_there() -> None:
            await self.find(file.id, project=file.project)

        return await open_span(self._blobs, file.sha256, span, owner=file.id, check=still_there)

    async def delete(self, file_id: str, *, project: str) -> None:
        """Delete a file, with its bytes unless others share them; raises `FilesError` (404)."""
        async with self._records.begin() as transaction:
            if not await transaction.remove(file_id, project=project, now=self._clock.now()):
                raise no_such_file(file_id)
        try:
            await sweep_orphans(self._records, self._blobs)
        except OSError as error:
            # The file is gone for all readers, and an orphan does not wait for a repetition.
            logger.warning("bytes of a deleted file stay until they are swept: %r", error)

    async def sweep(self) -> int:
        """Remove files whose time is over and bytes that nothing needs; count the files.

        Raises what the database and the store raise when they are away. Idempotent.
        """
        removed = 0
        while True:
            async with self._records.begin() as transaction:
                found = await transaction.remove_expired(self._clock.now(), limit=_SWEEP_BATCH)
            removed += found
            if found < _SWEEP_BATCH:
                break
        await sweep_orphans(self._records, self._blobs)
        await self._blobs.expire(UPLOADS, before=self._clock.now() - _ABANDONED)
        return removed
