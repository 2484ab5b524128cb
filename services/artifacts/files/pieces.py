"""An upload on its way into the blob store: never more of it in memory than one piece."""

from __future__ import annotations

import hashlib
from uuid import uuid4

from services.artifacts.content_types import Sniffer
from services.artifacts.files.errors import too_large
from services.kit.blobs.store import PIECE_BYTES, BlobStore

UPLOADS = "uploads"
"""Where pieces wait for their file to be whole; what a crash leaves there is swept."""
_TYPE = "application/octet-stream"


class Pieces:
    """The bytes of one file. What fits into one piece is not stored before it is known to be new.

    Whoever makes one calls `discard` at the end, whatever happened.
    """

    def __init__(self, blobs: BlobStore, *, max_bytes: int) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._token = uuid4().hex
        self._keys: list[str] = []
        self._open = bytearray()
        self._hash = hashlib.sha256()
        self._sniffer = Sniffer()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The hash of what was written, 64 hex digits."""
        return self._hash.hexdigest()

    async def write(self, data: bytes) -> None:
        """Take the next bytes; raises `FilesError` (413), and `OSError` when the store fails."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        self._hash.update(data)
        self._sniffer.feed(data)
        self._open += data
        while len(self._open) > PIECE_BYTES:
            piece = bytes(self._open[:PIECE_BYTES])
            del self._open[:PIECE_BYTES]
            await self._put(piece)

    def content_type(self) -> str:
        """Return the type that the bytes have; nothing may be written afterwards."""
        return self._sniffer.result()[0]

    async def store(self, key: str) -> None:
        """Make all of it the blob under `key`; durable when it returns. Raises `OSError`."""
        if not self._keys:
            await self._blobs.put(key, bytes(self._open), content_type=_TYPE)
            return
        if self._open:
            await self._put(bytes(self._open))
            self._open.clear()
        await self._blobs.join(key, self._keys)

    async def discard(self) -> None:
        """Remove the pieces; raises `OSError`."""
        while self._keys:
            await self._blobs.delete(self._keys.pop())

    async def _put(self, piece: bytes) -> None:
        key = f"{UPLOADS}/{self._token}-{len(self._keys):05d}"
        self._keys.append(key)
        await self._blobs.put(key, piece, content_type=_TYPE)
