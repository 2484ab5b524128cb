"""What a store of blobs promises, wherever it keeps them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 5 * 1024 * 1024
"""S3 joins pieces of at least this size; only the last one may be smaller."""
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){1,4}")


class BlobMissingError(Exception):
    """There is no blob under the key."""


class BlobStore(Protocol):
    """Keeps bytes under keys such as `artifacts/ab/abcd...`. Writing a key again replaces it.

    A key has two to five parts of letters, digits, `_`, `-` and, after the first part and its first
    character, `.`; another one raises `ValueError`. No key may be the beginning of another at a
    slash. Every method raises `OSError` when the store can't be reached or is full.
    """

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        """Store the bytes; durable when it returns. Readers see the old bytes or all new ones."""
        ...

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        ...

    def stream(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 256 KiB of `length` bytes, by default all, from offset `start` on.

        `start` must lie within the blob. Raises `BlobMissingError` before the first chunk. Whoever
        stops early closes the generator with `aclose`.
        """
        ...

    async def join(self, key: str, pieces: Sequence[str]) -> None:
        """Make one blob of others, in their order, which stay; durable when it returns.

        Each but the last has `PIECE_BYTES` or more. No byte comes through this process on S3.
        Raises `BlobMissingError`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        ...

    async def expire(self, prefix: str, *, before: datetime) -> int:
        """Remove the blobs below `prefix` (such as `claims`) written before a time; count them."""
        ...

    async def check(self) -> None:
        """Make the store ready for use if need be; raise `OSError` when it is not usable."""
        ...


def checked(key: str) -> str:
    """Return the key; raises `ValueError`, see `BlobStore`."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a blob key: {key!r}")
    return key
