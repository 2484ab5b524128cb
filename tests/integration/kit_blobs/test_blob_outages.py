"""How the blob stores fail: always with an OSError that names the cause, and without leftovers."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.s3 import S3Blobs
from services.kit.blobs.store import BlobMissingError, BlobStore

KEY = "artifacts/ab/abcdef"
TYPE = "application/octet-stream"
MakeBlobs = Callable[..., BlobStore]


async def every_call_fails(blobs: BlobStore, reason: str) -> None:
    calls = (
        blobs.put(KEY, b"content", content_type=TYPE),
        blobs.get(KEY),
        anext(blobs.stream(KEY)),
        blobs.delete(KEY),
        blobs.check(),
    )
    for call in calls:
        with pytest.raises(OSError, match=reason):
            await call


async def test_a_server_that_is_not_there_is_an_os_error(s3_blobs: MakeBlobs) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"

        await every_call_fails(s3_blobs(s3_endpoint=endpoint), "does not answer")


async def test_a_wrong_secret_is_an_os_error_that_names_the_refusal(s3_blobs: MakeBlobs) -> None:
    await s3_blobs().check()
    blobs = s3_blobs(s3_secret_key="wrong")

    for call in (blobs.put(KEY, b"content", content_type=TYPE), blobs.get(KEY), blobs.check()):
        with pytest.raises(OSError, match=r"SignatureDoesNotMatch|AccessDenied"):
            await call


async def test_a_missing_bucket_is_an_outage_and_no_missing_blob(s3_blobs: MakeBlobs) -> None:
    blobs = s3_blobs()

    with pytest.raises(OSError, match="NoSuchBucket"):
        await blobs.get(KEY)

    await blobs.check()
    with pytest.raises(BlobMissingError):
        await blobs.get(KEY)


async def test_replicas_that_make_the_bucket_at_once_all_succeed(s3_blobs: MakeBlobs) -> None:
    await asyncio.gather(*(s3_blobs().check() for _ in range(8)))


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[str]:
    """A server that gives every request the same bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def silence(heard: asyncio.Event) -> AsyncIterator[str]:
    """A server that takes everything and says nothing until it is heard no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard.wait()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_a_server_that_hangs_is_given_up_in_time_by_any_number_of_callers(
    s3_blobs: MakeBlobs,
) -> None:
    over = asyncio.Event()
    async with silence(over) as endpoint:
        blobs = s3_blobs(s3_endpoint=endpoint)
        assert isinstance(blobs, S3Blobs)
        blobs.call_seconds = 0.5
        began = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(
            *(blobs.put(KEY, b"content", content_type=TYPE) for _ in range(50)),
            *(blobs.get(KEY) for _ in range(50)),
            return_exceptions=True,
        )
        assert asyncio.get_running_loop().time() - began < 5
        # Threads that hang are let go before the test ends.
        over.set()
    assert {str(one) for one in outcomes} == {"the object store does not answer in time"}
    assert all(isinstance(one, OSError) for one in outcomes)


async def test_an_answer_that_ends_too_early_is_no_content(s3_blobs: MakeBlobs) -> None:
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 10
    async with server(cut) as endpoint:
        blobs = s3_blobs(s3_endpoint=endpoint)

        with pytest.raises(OSError, match="does not answer"):
            await blobs.get(KEY)
        with pytest.raises(OSError, match="does not answer"):
            [chunk async for chunk in blobs.stream(KEY)]


async def test_an_answer_that_is_not_s3_is_an_os_error(s3_blobs: MakeBlobs) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\noops"
    async with server(page) as endpoint:
        with pytest.raises(OSError, match="502"):
            await s3_blobs(s3_endpoint=endpoint).get(KEY)


async def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    blobs = DiskBlobs(in_the_way / "blobs")

    with pytest.raises(OSError, match="file"):
        await blobs.check()
    with pytest.raises(OSError, match="file"):
        await blobs.put(KEY, b"content", content_type=TYPE)


async def test_a_write_that_fails_leaves_the_old_blob_and_no_draft(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    await blobs.put(KEY, b"old", content_type=TYPE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    # The kernel refuses to let the file grow, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            await blobs.put(KEY, b"x" * 2 * 1024 * 1024, content_type=TYPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert await blobs.get(KEY) == b"old"
    assert [path.name for path in (tmp_path / KEY).parent.iterdir()] == ["abcdef"]
