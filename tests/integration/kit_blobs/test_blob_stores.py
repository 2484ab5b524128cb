"""What every blob store promises, on the real disk and on a real S3 server."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.kit.blobs.store import CHUNK_BYTES, PIECE_BYTES, BlobMissingError, BlobStore

KEY = "artifacts/ab/abcdef"
TYPE = "application/octet-stream"


async def read(blobs: BlobStore, key: str = KEY, **options: Any) -> list[bytes]:
    return [chunk async for chunk in blobs.stream(key, **options)]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7])
async def test_what_was_put_comes_back_whole_and_in_bounded_chunks(
    blobs: BlobStore, size: int
) -> None:
    content = os.urandom(size)

    await blobs.put(KEY, content, content_type=TYPE)

    chunks = await read(blobs)
    assert await blobs.get(KEY) == b"".join(chunks) == content
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


async def test_a_blob_above_the_size_of_one_upload_part_comes_back_whole(blobs: BlobStore) -> None:
    content = os.urandom(6 * 1024 * 1024 + 1)

    await blobs.put(KEY, content, content_type=TYPE)

    assert await blobs.get(KEY) == content


async def test_a_second_put_replaces_the_first(blobs: BlobStore) -> None:
    await blobs.put(KEY, b"first and longer", content_type=TYPE)
    await blobs.put(KEY, b"second", content_type=TYPE)

    assert await blobs.get(KEY) == b"second"


async def test_puts_of_one_key_at_once_leave_one_of_them_whole(blobs: BlobStore) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]

    await asyncio.gather(*(blobs.put(KEY, content, content_type=TYPE) for content in contents))

    assert await blobs.get(KEY) in contents


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 1), (0, None), (5, 10), (0, 0), (99_999, 1), (99_999, None), (1, CHUNK_BYTES)],
)
async def test_a_part_of_a_blob_can_be_read(
    blobs: BlobStore, start: int, length: int | None
) -> None:
    content = os.urandom(100_000)
    await blobs.put(KEY, content, content_type=TYPE)

    part = b"".join(await read(blobs, start=start, length=length))

    assert part == content[start : None if length is None else start + length]


async def test_a_part_over_several_chunks_ends_where_it_should(blobs: BlobStore) -> None:
    content = os.urandom(4 * CHUNK_BYTES)
    await blobs.put(KEY, content, content_type=TYPE)

    part = b"".join(await read(blobs, start=17, length=2 * CHUNK_BYTES + 1))

    assert part == content[17 : 17 + 2 * CHUNK_BYTES + 1]


@pytest.mark.parametrize("key", ["artifacts/ab/none", "artifacts/cd/none", "claims/none"])
async def test_a_missing_blob_is_told_before_the_first_chunk(blobs: BlobStore, key: str) -> None:
    await blobs.put(KEY, b"another", content_type=TYPE)

    with pytest.raises(BlobMissingError):
        await blobs.get(key)
    with pytest.raises(BlobMissingError):
        await anext(blobs.stream(key))


async def test_a_deleted_blob_is_missing_and_may_be_deleted_again(blobs: BlobStore) -> None:
    await blobs.put(KEY, b"content", content_type=TYPE)

    await blobs.delete(KEY)
    await blobs.delete(KEY)

    with pytest.raises(BlobMissingError):
        await blobs.get(KEY)


async def test_deleting_one_blob_leaves_its_neighbours(blobs: BlobStore) -> None:
    await blobs.put("artifacts/ab/one", b"1", content_type=TYPE)
    await blobs.put("artifacts/ab/two", b"2", content_type=TYPE)

    await blobs.delete("artifacts/ab/one")

    assert await blobs.get("artifacts/ab/two") == b"2"


async def test_a_reader_that_stops_early_leaves_the_store_usable(blobs: BlobStore) -> None:
    content = os.urandom(8 * CHUNK_BYTES)
    await blobs.put(KEY, content, content_type=TYPE)

    for _ in range(40):
        async with aclosing(blobs.stream(KEY)) as chunks:
            assert await anext(chunks) == content[:CHUNK_BYTES]

    assert await blobs.get(KEY) == content


async def test_many_readers_at_once_are_all_served(blobs: BlobStore) -> None:
    content = os.urandom(2 * CHUNK_BYTES)
    await blobs.put(KEY, content, content_type=TYPE)

    answers = await asyncio.gather(*(read(blobs) for _ in range(50)))

    assert {b"".join(chunks) for chunks in answers} == {content}


@pytest.mark.parametrize("sizes", [[3], [PIECE_BYTES, 7], [PIECE_BYTES, PIECE_BYTES + 1, 1]])
async def test_pieces_become_one_blob_and_stay(blobs: BlobStore, sizes: list[int]) -> None:
    contents = [os.urandom(size) for size in sizes]
    keys = [f"uploads/one-{number}" for number in range(len(sizes))]
    for key, content in zip(keys, contents, strict=True):
        await blobs.put(key, content, content_type=TYPE)

    await blobs.join(KEY, keys)

    assert await blobs.get(KEY) == b"".join(contents)
    assert [await blobs.get(key) for key in keys] == contents


async def test_a_piece_that_is_missing_is_told_and_leaves_no_blob(blobs: BlobStore) -> None:
    await blobs.put("uploads/one-0", b"x" * PIECE_BYTES, content_type=TYPE)

    with pytest.raises(BlobMissingError):
        await blobs.join(KEY, ["uploads/one-0", "uploads/one-1"])
    with pytest.raises(BlobMissingError):
        await blobs.get(KEY)


async def test_a_check_of_a_usable_store_may_be_repeated(blobs: BlobStore) -> None:
    await blobs.check()
    await blobs.check()


async def test_old_blobs_below_a_prefix_expire_and_others_stay(blobs: BlobStore) -> None:
    await blobs.put("claims/one", b"1", content_type=TYPE)
    await blobs.put("claims/two", b"2", content_type=TYPE)
    await blobs.put(KEY, b"an artifact", content_type=TYPE)
    now = datetime.now(UTC)

    assert await blobs.expire("claims", before=now - timedelta(hours=1)) == 0
    assert await blobs.expire("claims", before=now + timedelta(hours=1)) == 2

    with pytest.raises(BlobMissingError):
        await blobs.get("claims/one")
    assert await blobs.get(KEY) == b"an artifact"
