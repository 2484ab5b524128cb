"""Blobs on an S3 server, through `minio`."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ComposeSource
from minio.error import MinioException, S3Error

from services.kit.blobs.store import CHUNK_BYTES, BlobMissingError, checked
from services.kit.settings import ServiceSettings

_TIMEOUT = urllib3.Timeout(connect=3, read=30)
_S3_THREADS = 16
_CALL_SECONDS = 45.0
_BYTES_PER_SECOND = 1024 * 1024
"""A store that is slower than this is away; a call may take so much longer for what it carries."""
_MISSING = frozenset({"NoSuchKey", "NoSuchObject"})
_ALREADY_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
Result = TypeVar("Result")


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
        self.call_seconds = _CALL_SECONDS
        """How long a call may take, beside what it sends; less than a consumer may need to move."""
        self._threads = ThreadPoolExecutor(_S3_THREADS, thread_name_prefix="s3")

    async def _call(self, action: Callable[[], Result], *, carried_bytes: int | None = 0) -> Result:
        seconds = None
        if carried_bytes is not None:
            seconds = self.call_seconds + carried_bytes / _BYTES_PER_SECOND
        try:
            # Behind a server that hangs calls wait for a thread, too: those are not begun any more.
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, action)
        except TimeoutError as error:
            raise OSError("the object store does not answer in time") from error
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
        name = checked(key)

        def upload() -> None:
            body = io.BytesIO(content)
            self._client.put_object(
                self._bucket, name, body, len(content), content_type=content_type
            )

        await self._call(upload, carried_bytes=len(content))

    async def get(self, key: str) -> bytes:
        """Return all bytes; raises `BlobMissingError`."""
        name = checked(key)

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
        name = checked(key)
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
        name = checked(key)
        sources: list[ComposeSource] = [_Piece(self._bucket, checked(piece)) for piece in pieces]
        # The server copies gigabytes; its silence is bounded.
        joined = partial(self._client.compose_object, self._bucket, name, sources)
        await self._call(joined, carried_bytes=None)

    async def delete(self, key: str) -> None:
        """Remove the blob; does nothing when it is missing."""
        name = checked(key)
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

        return await self._call(sweep, carried_bytes=None)

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


def open_s3(settings: ServiceSettings) -> S3Blobs:
    """Return the bucket that the settings name.

    Raises `ValueError` for an endpoint that is not `http(s)://host[:port]`.
    """
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
