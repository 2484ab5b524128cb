"""A disk that is full, a real one: what does not fit is refused whole, and room is used at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.store import BlobMissingError
from services.kit.claimcheck import check_in, check_out
from tests.unit.intake.apps import Exchange, Intake

DISK_BYTES = 4 * 1024 * 1024
PIECE = b"x" * (1024 * 1024)
TYPE = "application/octet-stream"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    root = () if os.geteuid() == 0 else ("sudo", "-n")
    options = f"size={DISK_BYTES},uid={os.geteuid()}"
    subprocess.run((*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder), check=True)
    try:
        yield folder
    finally:
        subprocess.run((*root, "umount", "--lazy", folder), check=True)


def test_a_full_disk_for_logs_stops_nobody() -> None:
    program = (
        "import logging\n"
        "from services.kit.logging import configure_logging\n"
        "configure_logging(service='test', level='INFO', style='json')\n"
        "for _ in range(1000): logging.getLogger('x').error('words')\n"
        "print('alive')\n"
    )
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            (sys.executable, "-c", program), stdout=subprocess.PIPE, stderr=full, check=True
        )
    assert ran.stdout == b"alive\n"


@pytest.fixture
def blobs(disk: Path) -> DiskBlobs:
    return DiskBlobs(disk / "blobs")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def fill(blobs: DiskBlobs) -> int:
    """Put blobs until no more fits; how many did."""
    for number in range(100):
        try:
            await blobs.put(f"artifacts/aa/{number}", PIECE, content_type=TYPE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
    raise AssertionError("the disk is larger than it should be")


async def test_what_does_not_fit_leaves_nothing_behind_and_hurts_nothing(
    blobs: DiskBlobs, disk: Path
) -> None:
    kept = await fill(blobs)
    assert kept >= 2
    assert files_in(disk) == [str(number) for number in range(kept)]
    for number in range(kept):
        assert await blobs.get(f"artifacts/aa/{number}") == PIECE
    with pytest.raises(BlobMissingError):
        await blobs.get(f"artifacts/aa/{kept}")


async def test_a_blob_that_is_there_survives_one_in_its_place_that_does_not_fit(
    blobs: DiskBlobs,
) -> None:
    await blobs.put("artifacts/aa/0", b"old", content_type=TYPE)
    with pytest.raises(OSError, match="No space left"):
        await blobs.put("artifacts/aa/0", PIECE * 5, content_type=TYPE)
    assert await blobs.get("artifacts/aa/0") == b"old"


async def test_pieces_that_can_not_be_joined_stay(blobs: DiskBlobs, disk: Path) -> None:
    kept = await fill(blobs)
    pieces = [f"artifacts/aa/{number}" for number in range(kept)]
    with pytest.raises(OSError, match="No space left"):
        await blobs.join("artifacts/bb/whole", pieces)
    assert files_in(disk) == [str(number) for number in range(kept)]


async def test_a_full_disk_is_not_ready_and_is_again_once_there_is_room(
    blobs: DiskBlobs, disk: Path
) -> None:
    kept = await fill(blobs)
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(PIECE * 4)
    with pytest.raises(OSError, match="No space left"):
        await blobs.check()
    with pytest.raises(OSError, match="No space left"):
        await check_in(blobs, key="resp_1-request", payload=PIECE)
    filler.unlink()
    await blobs.delete("artifacts/aa/0")
    await blobs.check()
    claim = await check_in(blobs, key="resp_1-request", payload=PIECE)
    assert claim is not None
    assert await check_out(blobs, claim) == PIECE
    assert len(files_in(disk)) == kept


async def test_a_request_that_a_full_disk_can_not_keep_is_refused_and_taken_when_it_can(
    blobs: DiskBlobs,
) -> None:
    await fill(blobs)
    intake = Intake(max_body_bytes=2 * len(PIECE))
    intake.responses.blobs = blobs
    body = orjson.dumps({"model": "gpt-5.1", "input": "x" * len(PIECE), "background": True})
    answer = await Exchange(intake, body).run()
    assert (answer.status, answer.error["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert intake.producer.messages == []
    assert intake.responses.open_requests == 0

    small = orjson.dumps({"model": "gpt-5.1", "input": "hello", "background": True})
    assert (await Exchange(intake, small).run()).status == 200
    await blobs.delete("artifacts/aa/0")
    await blobs.delete("artifacts/aa/1")
    assert (await Exchange(intake, body).run()).status == 200
    assert intake.producer.command()["payload"]["size_bytes"] > len(PIECE)
