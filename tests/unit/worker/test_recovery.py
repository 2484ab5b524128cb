"""What earlier attempts told, read back from a log of which a part is lost for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from contracts.packs import Entry, Flag, encode_pack
from services.kit.blobs.disk import DiskBlobs
from services.worker.runs import recovery
from tests.unit.kit.records import Message
from tests.unit.worker.runs import job

ID = "resp_1"


def log_of(*entries: Entry) -> Any:
    async def read(*_: Any, **__: Any) -> AsyncGenerator[list[Message], None]:
        yield [Message(encode_pack([entry])) for entry in entries]

    return read


@pytest.mark.parametrize("flags", [Flag.NONE, Flag.LAST, Flag.LAST | Flag.JSON])
async def test_a_payload_that_is_gone_was_told_all_the_same(
    flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Entry(ID.encode(), 1, 0, b"claims/gone", flags | Flag.CLAIM)
    mark = Entry(ID.encode(), 2, 0, b": taken over\n\n")
    monkeypatch.setattr(recovery, "read_range", log_of(lost, mark))

    found = await recovery.delivered("nowhere:0", DiskBlobs(tmp_path), response_id=ID, partition=0)

    assert found.built.delivered
    assert found.ended is bool(flags & Flag.LAST)
    assert found.finished is None


async def test_what_many_jobs_told_is_read_back_by_a_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    reading = 0

    async def read(*_: Any, **__: Any) -> AsyncGenerator[list[Message], None]:
        nonlocal reading
        reading += 1
        try:
            await gate.wait()
        finally:
            reading -= 1
        yield []

    monkeypatch.setattr(recovery, "read_range", read)
    read_back = recovery.ReadBack("nowhere:0", DiskBlobs(tmp_path), most=3)
    first, *others = [asyncio.ensure_future(read_back(job(attempt=2))) for _ in range(10)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert reading == 3
    # One that is stopped leaves its place to the next.
    first.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (first.cancelled(), reading) == (True, 3)
    gate.set()
    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*others)) == 9
