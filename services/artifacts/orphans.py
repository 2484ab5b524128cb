"""Blobs that several owners share: opening their bytes, and removing those that nobody needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

from services.artifacts.domain import blob_key
from services.artifacts.errors import ContentLostError
from services.artifacts.ranges import Span
from services.kit.blobs.store import BlobMissingError, BlobStore

_SWEEP_BATCH = 20


class BlobTransaction(Protocol):
    """Changes to the records of blobs that become visible together."""

    async def lock_blob(self, sha256: str, size_bytes: int) -> bool:
        """Lock the blob's record, made if need be; whether its bytes are known to be stored."""
        ...

    async def blob_stored(self, sha256: str) -> None:
        """Record that the bytes of a locked blob are durable."""
        ...

    def orphans(self, limit: int) -> AbstractAsyncContextManager[list[str]]:
        """Lock up to `limit` orphans for the body, which removes their bytes, then forget them."""
        ...


class Sweepable(Protocol):
    """Where blobs are on record."""

    def begin(self) -> AbstractAsyncContextManager[BlobTransaction]:
        """Open a transaction that commits at the end of the body, or is undone by its error."""
        ...


async def sweep_orphans(records: Sweepable, blobs: BlobStore) -> None:
    """Remove the bytes that nobody needs any more; raises `OSError` when the store fails."""
    while True:
        async with records.begin() as transaction, transaction.orphans(_SWEEP_BATCH) as found:
            for sha256 in found:
                await blobs.delete(blob_key(sha256))
        if len(found) < _SWEEP_BATCH:
            return


async def open_span(
    blobs: BlobStore,
    sha256: str,
    span: Span,
    *,
    owner: str,
    check: Callable[[], Awaitable[object]],
) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a span as a generator whose store has already answered.

    Whoever stops early closes it. When the store has no such bytes, `check` raises if their owner
    was deleted meanwhile, else this raises `ContentLostError`; `OSError` when the store fails.
    """
    chunks = blobs.stream(blob_key(sha256), start=span.start, length=span.length)
    try:
        first = await anext(chunks, b"")
    except BlobMissingError as error:
        await check()
        raise ContentLostError(owner) from error
    return _joined(first, chunks)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk
