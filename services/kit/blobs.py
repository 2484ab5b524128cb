"""Blobs by key on S3 (through `minio`) or on local disk: artifacts and claim-checked payloads."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import S3Error

from services.kit.settings import ServiceSettings

CHUNK_BYTES = 256 * 1024
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_.-]{1,128}){1,4}")
Result = TypeVar("Result")
_TIMEOUT = urllib3.Timeout(connect=3, read=30)


class BlobMissingError(Exception):
    """There is no blob under the key."""


class BlobStore(Protocol):
    """Keeps bytes under keys such as `artifacts/ab/abcd...`. Writing a key again replaces it.

    Every method raises `OSError` when the store can't be reached or is full.
    """

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        """Store the bytes; durable when it returns."""
        ...

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """Yield chunks of up to 256 KiB; raises `BlobMissingError` before the first."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        ...

    async def check(self) -> None:
        """Raise `OSError` when the store is not usable."""
        ...


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"not a blob key: {key!r}")
    return key


class DiskBlobs:
    """Blobs as files below one folder, written beside and renamed: none is ever half there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _write(self, key: str, content: bytes) -> None:
        path = self._root / _checked(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{id(content):x}.part")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:  # noqa: ARG002
        """Store the bytes; durable when it returns."""
        await asyncio.to_thread(self._write, key, content)

    def _read(self, key: str) -> bytes:
        try:
            return (self._root / _checked(key)).read_bytes()
        except FileNotFoundError as error:
            raise BlobMissingError(key) from error

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        return await asyncio.to_thread(self._read, key)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Yield chunks of up to 256 KiB; raises `BlobMissingError` before the first."""
        try:
            file = await asyncio.to_thread((self._root / _checked(key)).open, "rb")
        except FileNotFoundError as error:
            raise BlobMissingError(key) from error
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        path = self._root / _checked(key)
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def check(self) -> None:
        """Raise `OSError` when the folder can't be written."""
        await asyncio.to_thread(self._root.mkdir, parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK):
            raise PermissionError(f"cannot write to {self._root}")


class S3Blobs:
    """Blobs as objects of one bucket; the client blocks, so each call runs in a thread."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        """Store the bytes; durable when it returns."""

        def upload() -> None:
            self._client.put_object(
                self._bucket,
                _checked(key),
                io.BytesIO(content),
                len(content),
                content_type=content_type,
            )

        await _in_thread(upload)

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        return b"".join([chunk async for chunk in self.stream(key)])

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Yield chunks of up to 256 KiB; raises `BlobMissingError` before the first."""
        answer = await _in_thread(lambda: self._client.get_object(self._bucket, _checked(key)))
        try:
            chunks: Iterator[bytes] = answer.stream(CHUNK_BYTES)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield chunk
        finally:
            answer.close()
            answer.release_conn()

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        await _in_thread(lambda: self._client.remove_object(self._bucket, _checked(key)))

    async def check(self) -> None:
        """Create the bucket when it is missing; raise `OSError` when the server is not usable."""

        def ensure() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

        try:
            await _in_thread(ensure)
        except OSError:
            # Another replica may have made the bucket between the question and the order.
            if not await _in_thread(lambda: self._client.bucket_exists(self._bucket)):
                raise


async def _in_thread(action: Callable[[], Result]) -> Result:
    try:
        return await asyncio.to_thread(action)
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            raise BlobMissingError(str(error.resource)) from error
        raise OSError(f"the object store refused: {error.code} {error.message}") from error
    except urllib3.exceptions.HTTPError as error:
        raise OSError(f"the object store does not answer: {error}") from error


def open_blobs(settings: ServiceSettings) -> BlobStore:
    """Return the store the settings name: S3 when there is an endpoint, else local disk."""
    if settings.s3_endpoint is None:
        return DiskBlobs(settings.blob_dir)
    url = urlsplit(settings.s3_endpoint)
    pool = urllib3.PoolManager(
        timeout=_TIMEOUT, maxsize=16, retries=urllib3.Retry(total=2, backoff_factor=0.1)
    )
    client = Minio(
        url.netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=url.scheme == "https",
        region="us-east-1",
        http_client=pool,
    )
    return S3Blobs(client, settings.s3_bucket)
