"""Room for files: bounded in sum, first come first served, and never lost."""

from __future__ import annotations

import asyncio

from contracts.responses import AttachedFile, ClaimCheck
from services.worker.files.room import FileRoom, encoded_bytes


def files(*sizes: int) -> list[AttachedFile]:
    return [
        AttachedFile(
            file_id=f"file-{number}",
            filename="a.pdf",
            content_type="application/pdf",
            content=ClaimCheck(key="files/a", size_bytes=size, sha256="0" * 64),
        )
        for number, size in enumerate(sizes)
    ]


class Job:
    """Holds its files until it is told to end."""

    def __init__(self, room: FileRoom, *sizes: int) -> None:
        self.end = asyncio.Event()
        self.began = False
        self.task = asyncio.create_task(self._run(room, sizes))

    async def _run(self, room: FileRoom, sizes: tuple[int, ...]) -> None:
        async with room.hold(files(*sizes)):
            self.began = True
            await self.end.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_base64_is_a_third_larger() -> None:
    assert [encoded_bytes(size) for size in (0, 1, 3, 4, 300)] == [0, 4, 4, 8, 400]


async def test_jobs_wait_for_room_in_their_order() -> None:
    room = FileRoom(1_000)
    first, second, third = Job(room, 300, 300), Job(room, 300), Job(room, 30)
    await settled()
    assert (first.began, second.began, third.began) == (True, False, False)
    assert (room.held_bytes, room.waiting) == (800, 2)
    first.end.set()
    await settled()
    assert (second.began, third.began) == (True, True)
    assert (room.held_bytes, room.waiting) == (440, 0)
    second.end.set()
    third.end.set()
    await asyncio.gather(first.task, second.task, third.task)
    assert room.held_bytes == 0


async def test_a_job_with_more_than_all_room_runs_alone() -> None:
    room = FileRoom(1_000)
    small, large, other = Job(room, 30), Job(room, 3_000), Job(room, 30)
    await settled()
    assert (small.began, large.began, other.began) == (True, False, False)
    small.end.set()
    await settled()
    assert (large.began, other.began) == (True, False)
    large.end.set()
    await settled()
    assert other.began
    other.end.set()
    await other.task


async def test_a_job_that_is_cancelled_leaves_its_place_to_others() -> None:
    room = FileRoom(1_000)
    first, second, third = Job(room, 700), Job(room, 300), Job(room, 30)
    await settled()
    second.task.cancel()
    await settled()
    assert third.began
    first.task.cancel()
    third.end.set()
    await asyncio.gather(first.task, second.task, third.task, return_exceptions=True)
    assert (room.held_bytes, room.waiting) == (0, 0)


async def test_a_job_that_is_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    room = FileRoom(1_000)
    first, second = Job(room, 700), Job(room, 300)
    await settled()
    first.end.set()
    while room.waiting:  # noqa: ASYNC110 - the moment is meant
        await asyncio.sleep(0)
    second.task.cancel()
    await asyncio.gather(first.task, second.task, return_exceptions=True)
    assert room.held_bytes == 0
