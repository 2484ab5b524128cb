"""The life of a service: its parts start in order and stop in reverse, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass, field

import pytest
from aiokafka.errors import KafkaConnectionError

from services.kit.runtime import Runtime
from services.kit.tasks import TaskSet


@dataclass
class Named:
    """A part that notes what happens to it."""

    name: str
    journal: list[str]
    start_error: Exception | None = None
    stop_error: Exception | None = None
    hangs: bool = False
    never_starts: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        if self.never_starts:
            self.running.set()
            await asyncio.Event().wait()
        if self.start_error is not None:
            raise self.start_error
        self.journal.append(f"+{self.name}")
        self.running.set()

    async def stop(self) -> None:
        self.journal.append(f"-{self.name}")
        if self.hangs:
            await asyncio.Event().wait()
        if self.stop_error is not None:
            raise self.stop_error


def runtime(*parts: Named, stop_seconds: float = 5.0) -> Runtime:
    made = Runtime(stop_seconds=stop_seconds)
    for part in parts:
        made.add(part)
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_parts_in_reverse_and_ends_well(number: signal.Signals) -> None:
    journal: list[str] = []
    service = runtime(Named("a", journal), Named("b", journal))
    code = await service.run(on_ready=lambda: os.kill(os.getpid(), number))
    assert (code, journal) == (0, ["+a", "+b", "-b", "-a"])


async def test_a_fatal_error_ends_the_service_with_code_1() -> None:
    journal: list[str] = []
    service = runtime(Named("a", journal))
    code = await service.run(on_ready=lambda: service.fail(RuntimeError("no way on")))
    assert (code, journal) == (1, ["+a", "-a"])


@pytest.mark.parametrize("error", [OSError("can't listen"), KafkaConnectionError("nobody there")])
async def test_a_part_that_is_not_there_is_told_in_one_sentence_and_stops_the_others(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    journal: list[str] = []
    ready: list[bool] = []
    service = runtime(Named("a", journal), Named("b", journal, error), Named("c", journal))
    with caplog.at_level(logging.CRITICAL):
        code = await service.run(on_ready=lambda: ready.append(True))
    assert (code, journal, ready) == (1, ["+a", "-b", "-a"], [])
    [record] = caplog.records
    assert record.getMessage() == f"Named can't start: {error}"
    assert record.exc_info is None


async def test_a_bug_at_the_start_shows_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    journal: list[str] = []
    service = runtime(Named("a", journal, KeyError("x")))
    assert await service.run(on_ready=lambda: None) == 1
    assert caplog.records[0].exc_info is not None


async def test_a_part_that_hangs_or_fails_at_the_stop_does_not_keep_the_others() -> None:
    journal: list[str] = []
    parts = (
        Named("a", journal),
        Named("b", journal, hangs=True),
        Named("c", journal, stop_error=RuntimeError("stuck")),
    )
    service = runtime(*parts, stop_seconds=0.01)
    code = await service.run(on_ready=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, journal[3:]) == (0, ["-c", "-b", "-a"])


async def test_a_signal_while_a_part_still_starts_ends_the_service() -> None:
    journal: list[str] = []
    slow = Named("b", journal, never_starts=True)
    service = runtime(Named("a", journal), slow)
    running = asyncio.create_task(service.run(on_ready=lambda: None))
    await slow.running.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert journal == ["+a", "-b", "-a"]


async def test_a_task_that_fails_is_made_known() -> None:
    failures: list[BaseException] = []
    tasks = TaskSet(failures.append)

    async def fail() -> None:
        raise KeyError("x")

    task = tasks.spawn(fail(), name="doomed")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [type(failure) for failure in failures] == [KeyError]
    assert tasks.failed.is_set()
    assert len(tasks) == 0


async def test_a_task_that_is_stopped_has_not_failed() -> None:
    failures: list[BaseException] = []
    tasks = TaskSet(failures.append)
    tasks.spawn(asyncio.Event().wait(), name="waiting")
    await tasks.stop()
    assert failures == []
    assert not tasks.failed.is_set()
