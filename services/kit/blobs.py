"""Blobs by key on S3 (through `minio`) or on local disk: artifacts and claim-checked payloads."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import urllib3
from minio import Minio
from minio.commonconfig import ComposeSource
from minio.error import MinioException, S3Error

from services.kit.settings import ServiceSettings

CHUNK_BYTES = 256 * 1024
PIECE_BYTES = 5 * 1024 * 1024
"""S3 joins pieces of at least this size; only the last one may be smaller."""
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){1,4}")
_TIMEOUT = urllib3.Timeout(connect=3, read=30)
_S3_THREADS = 16
_MISSING = frozenset({"NoSuchKey", "NoSuchObject"})
_ALREADY_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
Result = TypeVar("Result")


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


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a blob key: {key!r}")
    return key


class DiskBlobs:
    """Blobs as files below one folder, written beside and renamed: none is ever half there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)

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


class _Piece(ComposeSource):
    """A source of a joined object, which nobody writes a second time.

    The client demands the ETag it has just read, unquoted, and not all servers understand that.
    """

    @property
    def headers(self) -> dict[str, str]:
        return {k: v for k, v in super().headers.items() if not k.endswith("-if-match")}


class S3Blobs:
    """Blobs as objects of one bucket.

    The client blocks, so each call runs in a thread, of a pool of its own: a server that hangs
    must not keep the rest of the process from its threads.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(_S3_THREADS, thread_name_prefix="s3")

    async def _call(self, action: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, action)
        except S3Error as error:
            if error.code in _MISSING:
                raise BlobMissingError(str(error.resource)) from error
            raise OSError(f"the object store refused: {error.code} {error.message}") from error
        except MinioException as error:
            raise OSError(f"the object store gave no proper answer: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise OSError(f"the object store does not answer: {error}") from error

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        """Store the bytes; durable when it returns."""
        name = _checked(key)

        def upload() -> None:
            body = io.BytesIO(content)
            self._client.put_object(
                self._bucket, name, body, len(content), content_type=content_type
            )

        await self._call(upload)

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        name = _checked(key)

        def download() -> bytes:
            answer = self._client.get_object(self._bucket, name)
            try:
                return bytes(answer.read())
            finally:
                answer.close()
                answer.release_conn()

        return await self._call(download)

    async def stream(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks of up to 256 KiB; raises `BlobMissingError` before the first."""
        name = _checked(key)
        if length == 0:
            return
        answer = await self._call(
            lambda: self._client.get_object(self._bucket, name, offset=start, length=length or 0)
        )
        try:
            while chunk := await self._call(lambda: answer.read(CHUNK_BYTES)):
                yield chunk
        except BaseException:
            # A read may still be under way in its thread, and closing would wait for it.
            self._threads.submit(answer.close)
            raise
        answer.release_conn()

    async def join(self, key: str, pieces: Sequence[str]) -> None:
        """Make one blob of others, in their order; durable when it returns."""
        name = _checked(key)
        sources: list[ComposeSource] = [_Piece(self._bucket, _checked(piece)) for piece in pieces]
        await self._call(lambda: self._client.compose_object(self._bucket, name, sources))

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        name = _checked(key)
        await self._call(lambda: self._client.remove_object(self._bucket, name))

    async def expire(self, prefix: str, *, before: datetime) -> int:
        """Remove the blobs below `prefix` that were written before a time; count them."""

        def sweep() -> int:
            removed = 0
            for found in self._client.list_objects(self._bucket, f"{prefix}/", recursive=True):
                if found.last_modified is not None and found.last_modified < before:
                    self._client.remove_object(self._bucket, str(found.object_name))
                    removed += 1
            return removed

        return await self._call(sweep)

    async def check(self) -> None:
        """Create the bucket when it is missing; raise `OSError` when the server is not usable."""

        def ensure() -> None:
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                # Another replica may have made it between the question and the order.
                if error.code not in _ALREADY_THERE:
                    raise

        await self._call(ensure)


def open_blobs(settings: ServiceSettings) -> BlobStore:
    """Return the store the settings name: S3 when there is an endpoint, else local disk.

    Raises `ValueError` for an endpoint that is not `http(s)://host[:port]`.
    """
    if not settings.s3_endpoint:
        return DiskBlobs(settings.blob_dir)
    url = urlsplit(settings.s3_endpoint)
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
        raise ValueError(f"S3_ENDPOINT must be http(s)://host[:port], not {settings.s3_endpoint!r}")
    pool = urllib3.PoolManager(
        timeout=_TIMEOUT, maxsize=_S3_THREADS, retries=urllib3.Retry(total=2, backoff_factor=0.1)
    )
    client = Minio(
        url.netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=url.scheme == "https",
        region=settings.s3_region,
        http_client=pool,
    )
    return S3Blobs(client, settings.s3_bucket)
