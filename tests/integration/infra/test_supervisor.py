"""The supervisor with real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.local.backoff import Backoff
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.process import Child, run_to_end, serving
from infra.local.state import State
from infra.local.supervisor import Step, Supervisor
from tests.integration.infra.programs import BOUND_S, ProgramPart, until

CHECKOUT = Path(__file__).resolve().parents[3]
BACKOFF = Backoff(first_s=0.01, longest_s=0.05)


def supervisor_of(*steps: Step) -> tuple[Supervisor, list[str]]:
    lines: list[str] = []
    supervisor = Supervisor(steps, report=lines.append, changed=lambda _: None, backoff=BACKOFF)
    return supervisor, lines


def events(home: Path) -> list[str]:
    return (home / "events").read_text().splitlines()


async def test_steps_start_after_what_they_need_and_stop_by_falling_tier(tmp_path: Path) -> None:
    done: list[list[str]] = []

    async def job() -> None:
        done.append(events(tmp_path))

    supervisor, _ = supervisor_of(
        Step(name="b", part=ProgramPart("b", tmp_path), needs=("job",), tier=1),
        Step(name="job", job=job, needs=("a",)),
        Step(name="a", part=ProgramPart("a", tmp_path)),
    )
    await supervisor.start()
    assert {s.name: s.state for s in supervisor.status.values()} == {
        "a": State.READY,
        "b": State.READY,
        "job": State.DONE,
    }
    await supervisor.stop()
    assert done == [["a began"]]
    assert events(tmp_path) == ["a began", "b began", "b ended", "a ended"]


async def test_a_part_that_is_killed_comes_back(tmp_path: Path) -> None:
    supervisor, lines = supervisor_of(Step(name="a", part=ProgramPart("a", tmp_path)))
    await supervisor.start()
    status = supervisor.status["a"]
    first = status.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: status.state is State.READY and status.pid != first)
    assert status.restarts == 1
    assert lines == ["a ended with code -9; starting it again in 0.01 s"]
    await supervisor.stop()
    assert not psutil.pid_exists(status.pid or first)


async def test_a_part_that_never_gets_ready_fails_the_start_with_its_last_words(
    tmp_path: Path,
) -> None:
    broken = ProgramPart("broken", tmp_path, source="raise SystemExit('no such file: x.toml')")
    supervisor, lines = supervisor_of(
        Step(name="good", part=ProgramPart("good", tmp_path)),
        Step(name="broken", part=broken, needs=("good",)),
    )
    with pytest.raises(StackError, match=r"broken ended with code 1") as raised:
        await supervisor.start()
    assert raised.value.detail == "no such file: x.toml"
    assert len(lines) == 2
    await supervisor.stop()
    assert events(tmp_path) == ["good began", "good ended"]


async def test_a_job_that_fails_fails_the_start(tmp_path: Path) -> None:
    async def job() -> None:
        argv = (sys.executable, "-c", "raise SystemExit('bad migration')")
        await run_to_end(Command(argv=argv), tmp_path / "job.log", "The job")

    supervisor, _ = supervisor_of(Step(name="job", job=job))
    with pytest.raises(StackError, match="The job failed with code 1") as raised:
        await supervisor.start()
    assert raised.value.detail == "bad migration"
    await supervisor.stop()


async def test_a_part_that_ignores_the_request_to_end_is_killed_with_what_it_started(
    tmp_path: Path,
) -> None:
    source = (
        "import pathlib, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "pathlib.Path(sys.argv[1], sys.argv[2]).write_text(str(child.pid))\n"
        "signal.pause()\n"
    )
    part = ProgramPart("deaf", tmp_path, source=source)
    command = await part.prepare(print)
    child = await Child.start(Command(argv=command.argv, stop_timeout_s=0.2), tmp_path / "deaf.log")
    await until(lambda: (tmp_path / "deaf").exists() and (tmp_path / "deaf").read_text())
    grandchild = int((tmp_path / "deaf").read_text())
    await child.stop()
    assert child.returncode == -signal.SIGKILL
    await until(lambda: not psutil.pid_exists(grandchild))


async def test_a_program_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StackError) as raised:
        await run_to_end(Command(argv=("/no/such/program",)), tmp_path / "x.log", "The job")
    assert "/no/such/program: No such file or directory" in raised.value.detail


async def test_nothing_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    source = (
        "import asyncio, sys, pathlib\n"
        "from infra.local.process import serving\n"
        "from infra.local.parts.postgres import PostgresServer\n"
        "from tests.integration.infra.programs import ProgramPart\n"
        "async def main():\n"
        "    home = pathlib.Path(sys.argv[1])\n"
        "    async with serving(PostgresServer(home)), serving(ProgramPart('a', home)):\n"
        "        (home / 'up').touch()\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    argv = [sys.executable, "-c", source, str(tmp_path)]
    # In the background on purpose: what happens when it is killed is the question.
    with subprocess.Popen(argv, cwd=CHECKOUT) as process:  # noqa: ASYNC220 - starts in no time
        try:
            await until((tmp_path / "up").exists)
            family = psutil.Process(process.pid).children(recursive=True)
            assert "postgres" in {member.name() for member in family}
        finally:
            process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, BOUND_S)
    assert alive == []


async def test_a_part_runs_by_itself_for_a_test(tmp_path: Path) -> None:
    async with serving(ProgramPart("a", tmp_path)) as part:
        assert await part.is_ready()
    assert events(tmp_path) == ["a began", "a ended"]
