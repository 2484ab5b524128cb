"""Files are kept and forgotten as facts tell, on the real PostgreSQL and the real disk."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.artifacts.domain import Artifact, Query, artifact_id, blob_key
from services.artifacts.service import Keeper
from services.artifacts.store import PostgresRecords
from services.artifacts.tables import BLOBS, REFUSALS, RESPONSES
from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.store import BlobMissingError
from tests.integration.artifacts.conftest import NOW, Apply
from tests.integration.artifacts.facts import (
    FINISHED_AT,
    Announcements,
    deleted,
    file_item,
    finished,
    image_item,
    png,
    principal,
)


async def kept(records: PostgresRecords) -> list[Artifact]:
    return await records.page(Query(project=None, limit=100, order="asc"))


def stored_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_file_is_recorded_stored_and_announced(
    apply: Apply, records: PostgresRecords, blobs: DiskBlobs, announcements: Announcements
) -> None:
    await apply(finished("resp_1", [image_item(png("a"))]))

    identifier = artifact_id("resp_1", "ig_0", 0)
    assert await kept(records) == [
        Artifact(
            id=identifier,
            response_id="resp_1",
            item_id="ig_0",
            position=0,
            principal=principal("research"),
            kind="image",
            filename="ig_0-0.png",
            content_type="image/png",
            size_bytes=len(png("a")),
            sha256=sha256(png("a")),
            created_at=FINISHED_AT,
        )
    ]
    assert await blobs.get(blob_key(sha256(png("a")))) == png("a")
    assert announcements.told == [("stored", identifier)]


async def test_a_response_without_files_leaves_no_record(
    apply: Apply, engine: AsyncEngine, records: PostgresRecords
) -> None:
    await apply(finished("resp_1", [{"id": "msg_1", "type": "message", "content": []}]))

    async with engine.connect() as connection:
        assert (await connection.execute(select(RESPONSES))).all() == []
    assert await kept(records) == []


async def test_a_repeated_fact_changes_nothing_and_announces_the_same_again(
    apply: Apply, records: PostgresRecords, announcements: Announcements, tmp_path: Path
) -> None:
    fact = finished("resp_1", [image_item(png("a")), file_item(b"text", "notes.txt", 1)])
    await apply(fact)
    once, told, files = await kept(records), list(announcements.told), stored_files(tmp_path)

    await apply(fact)

    assert await kept(records) == once
    assert announcements.told == told * 2
    assert stored_files(tmp_path) == files


async def test_equal_contents_are_stored_once_for_all_responses_and_projects(
    apply: Apply, records: PostgresRecords, tmp_path: Path
) -> None:
    same = image_item(png("same"))
    await apply(finished("resp_1", [same, same | {"id": "ig_again"}]))
    await apply(finished("resp_2", [same], project="sales"))

    assert len(await kept(records)) == 3
    assert stored_files(tmp_path) == [sha256(png("same"))]


async def test_a_content_goes_with_its_last_artifact(
    apply: Apply, records: PostgresRecords, announcements: Announcements, tmp_path: Path
) -> None:
    shared, own = image_item(png("shared")), image_item(png("own"), 1)
    await apply(finished("resp_1", [shared, own]))
    await apply(finished("resp_2", [shared], project="sales"))
    announcements.told.clear()

    await apply(deleted("resp_1"))

    assert [artifact.response_id for artifact in await kept(records)] == ["resp_2"]
    assert stored_files(tmp_path) == [sha256(png("shared"))]
    assert sorted(announcements.told) == sorted(
        ("response_deleted", artifact_id("resp_1", item, position))
        for item, position in (("ig_0", 0), ("ig_1", 1))
    )

    await apply(deleted("resp_2", project="sales"))

    assert await kept(records) == []
    assert stored_files(tmp_path) == []


async def test_a_deletion_wins_also_when_it_comes_first(
    apply: Apply, records: PostgresRecords, announcements: Announcements, tmp_path: Path
) -> None:
    await apply(deleted("resp_1"))
    await apply(finished("resp_1", [image_item(png("a"))]))
    await apply(finished("resp_1", [image_item(png("a"))], attempt=2))

    assert await kept(records) == []
    assert announcements.told == []
    assert stored_files(tmp_path) == []


async def test_a_deletion_is_forgotten_when_no_late_fact_can_come_any_more(
    keeper: Keeper, engine: AsyncEngine
) -> None:
    await keeper.forget(deleted("resp_old"), at=NOW, traceparent=None)
    await keeper.forget(
        deleted("resp_new"), at=NOW + timedelta(days=14, seconds=1), traceparent=None
    )

    async with engine.connect() as connection:
        rows = (await connection.execute(select(RESPONSES.c.response_id))).scalars().all()
    assert rows == ["resp_new"]


async def test_the_last_attempt_decides_whatever_the_order(
    apply: Apply, records: PostgresRecords, announcements: Announcements, tmp_path: Path
) -> None:
    first = finished("resp_1", [image_item(png("first")), image_item(png("more"), 1)])
    second = finished("resp_1", [image_item(png("second"))], attempt=2)
    for facts in ((first, second), (second, first)):
        await apply(facts[0])
        await apply(facts[1])

        [artifact] = await kept(records)
        assert artifact.sha256 == sha256(png("second"))
        assert stored_files(tmp_path) == [sha256(png("second"))]
    assert ("retention", artifact_id("resp_1", "ig_1", 1)) in announcements.told


async def test_a_last_attempt_without_files_removes_those_of_an_earlier_one(
    apply: Apply, records: PostgresRecords
) -> None:
    for facts in ((1, 2), (2, 1)):
        for attempt in facts:
            items = [image_item(png("a"))] if attempt == 1 else []
            await apply(finished(f"resp_{facts[0]}", items, attempt=attempt))

    assert await kept(records) == []


async def test_a_refused_file_is_on_record_and_goes_with_its_response(
    apply: Apply, engine: AsyncEngine, records: PostgresRecords
) -> None:
    broken = image_item(b"") | {"id": "ig_broken", "result": "not base64!"}
    await apply(finished("resp_1", [broken, image_item(png("good"))]))

    async with engine.connect() as connection:
        [refusal] = (await connection.execute(select(REFUSALS))).all()
    assert (refusal.item_id, refusal.position, refusal.reason) == ("ig_broken", 0, "malformed")
    assert [artifact.item_id for artifact in await kept(records)] == ["ig_0"]

    await apply(deleted("resp_1"))

    async with engine.connect() as connection:
        assert (await connection.execute(select(REFUSALS))).all() == []


async def test_what_could_not_be_announced_is_not_on_record_until_it_is(
    apply: Apply, records: PostgresRecords, announcements: Announcements
) -> None:
    fact = finished("resp_1", [image_item(png("a"))])
    announcements.broken = True
    with pytest.raises(ConnectionError):
        await apply(fact)
    assert await kept(records) == []

    announcements.broken = False
    await apply(fact)
    assert len(await kept(records)) == 1

    announcements.broken = True
    with pytest.raises(ConnectionError):
        await apply(deleted("resp_1"))
    assert len(await kept(records)) == 1


class FailingDisk(DiskBlobs):
    """A disk whose writes or removals fail while it is told so."""

    failing = True

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        if self.failing:
            raise OSError("the disk is full")
        await super().put(key, content, content_type=content_type)

    async def delete(self, key: str) -> None:
        if self.failing:
            raise OSError("the disk is read-only")
        await super().delete(key)


@pytest.fixture
def blobs(tmp_path: Path) -> FailingDisk:
    blobs = FailingDisk(tmp_path / "blobs")
    blobs.failing = False
    return blobs


async def test_a_file_that_could_not_be_stored_is_neither_on_record_nor_announced(
    apply: Apply, records: PostgresRecords, announcements: Announcements, blobs: FailingDisk
) -> None:
    fact = finished("resp_1", [image_item(png("a"))])
    blobs.failing = True
    with pytest.raises(OSError, match="full"):
        await apply(fact)
    assert await kept(records) == []
    assert announcements.told == []

    blobs.failing = False
    await apply(fact)

    assert await blobs.get(blob_key(sha256(png("a")))) == png("a")


async def test_bytes_that_could_not_be_removed_are_removed_by_the_repetition(
    apply: Apply, records: PostgresRecords, blobs: FailingDisk, tmp_path: Path
) -> None:
    await apply(finished("resp_1", [image_item(png("a"))]))
    blobs.failing = True
    with pytest.raises(OSError, match="read-only"):
        await apply(deleted("resp_1"))
    assert await kept(records) == []
    assert stored_files(tmp_path) == [sha256(png("a"))]

    blobs.failing = False
    await apply(deleted("resp_1"))

    assert stored_files(tmp_path) == []


async def test_a_content_that_comes_back_before_its_removal_stays(
    apply: Apply, blobs: FailingDisk, tmp_path: Path
) -> None:
    await apply(finished("resp_1", [image_item(png("a"))]))
    blobs.failing = True
    with pytest.raises(OSError, match="read-only"):
        await apply(deleted("resp_1"))
    blobs.failing = False

    await apply(finished("resp_2", [image_item(png("a"))]))
    await apply(deleted("resp_1"))

    assert stored_files(tmp_path) == [sha256(png("a"))]


async def test_replicas_that_keep_and_forget_one_content_at_once_agree_in_the_end(
    apply: Apply, records: PostgresRecords, blobs: DiskBlobs, engine: AsyncEngine, tmp_path: Path
) -> None:
    items = [image_item(png("hot")), image_item(png("warm"), 1)]
    for round_number in range(5):
        names = [f"resp_{round_number}_{number}" for number in range(12)]
        # Some are known already, so that their deletions meet the arrival of the others.
        for name in names[::2]:
            await apply(finished(name, items))
        await asyncio.gather(
            *(apply(finished(name, items[::-1])) for name in names[1::2]),
            *(apply(deleted(name)) for name in names[::2]),
        )
        assert {one.response_id for one in await kept(records)} == set(names[1::2])
        for artifact in await kept(records):
            await blobs.get(blob_key(artifact.sha256))

        await asyncio.gather(*(apply(deleted(name)) for name in names))

        assert await kept(records) == []
        assert stored_files(tmp_path) == []
        async with engine.connect() as connection:
            assert (await connection.execute(select(BLOBS))).all() == []
        for content in (png("hot"), png("warm")):
            with pytest.raises(BlobMissingError):
                await blobs.get(blob_key(sha256(content)))
