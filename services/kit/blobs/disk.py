"""Blobs on local disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from services.kit.blobs.store import CHUNK_BYTES, BlobMissingError, checked


class DiskBlobs:
    """Blobs as files below one folder, written beside and renamed: none is ever half there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root / checked(key)

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:  # noqa: ARG002
        """Store the bytes; durable when it returns."""

        def fill(draft: BinaryIO) -> None:
            draft.write(content)

        await asyncio.to_thread(_write, self._path(key), fill)

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        path = self._path(key)

        def read() -> bytes:
            with _opened(path) as file:
                return file.read()

        return await asyncio.to_thread(read)

    async def stream(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 256 KiB; raises `BlobMissingError` before the first."""
        with await asyncio.to_thread(_opened, self._path(key)) as file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                size = CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)
                if not (chunk := await asyncio.to_thread(file.read, size)):
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    async def join(self, key: str, pieces: Sequence[str]) -> None:
        """Make one blob of others, in their order; durable when it returns."""
        target, sources = self._path(key), [self._path(piece) for piece in pieces]

        def fill(draft: BinaryIO) -> None:
            for source in sources:
                with _opened(source) as file:
                    shutil.copyfileobj(file, draft, CHUNK_BYTES)

        await asyncio.to_thread(_write, target, fill)

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    async def expire(self, prefix: str, *, before: datetime) -> int:
        """Remove the blobs below `prefix` that were written before a time; count them."""
        oldest = before.timestamp()

        def sweep() -> int:
            removed = 0
            for path in (self._root / prefix).rglob("*"):
                # Another replica may sweep at the same time.
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
            return removed

        return await asyncio.to_thread(sweep)

    async def check(self) -> None:
        """Raise `OSError` when no file can be written into the folder, be it for want of space."""
        # Permissions alone say little: root may write everywhere, and a disk can be full.
        probe = self._root / f".probe-{uuid4().hex}"

        def try_out() -> None:
            _make_folder(self._root)
            try:
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)

        await asyncio.to_thread(try_out)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BlobMissingError(str(path)) from error


def _write(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    _make_folder(path.parent)
    draft = path.with_name(f".{uuid4().hex}.part")
    try:
        with draft.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    # A file survives a power cut only when the folder that names it was synced, too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
