"""Run a program as a child that can't outlive us: start, wait until ready, stop, run to the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command, Part

LAUNCH = Path(__file__).with_name("launch.py")
READY_POLL_S = 0.05
READY_TIMEOUT_S = 90.0
KILL_TIMEOUT_S = 5.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024
TAIL_LINES = 5
TAIL_BYTES = 64 * 1024

P = TypeVar("P", bound=Part)


def log_file(home: Path, name: str) -> Path:
    """Where a part's output goes."""
    return home / "logs" / f"{name}.log"


def tail(log: Path, lines: int = TAIL_LINES, *, start: int = 0) -> str:
    """Give the last lines of a log that were written after byte `start`; "" when it is missing."""
    if not log.is_file():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])


class Child:
    """A running program in a session of its own; must be started from the main thread.

    The kernel ties a child's death signal to the thread that started it, so a thread that ends
    early would take the child along.
    """

    def __init__(self, command: Command, process: Process, log: Path, log_start: int) -> None:
        self._command = command
        self._process = process
        self.log = log
        self._log_start = log_start

    @property
    def last_words(self) -> str:
        """The last lines of its own output."""
        return tail(self.log, start=self._log_start)

    @classmethod
    async def start(cls, command: Command, log: Path) -> Child:
        """Start `command` with its output appended to `log`."""
        user = f"{command.user[0]}:{command.user[1]}" if command.user else "-"
        binding = (str(os.getpid()), str(int(command.death_signal)), user)
        with _opened(log) as output, (command.stdin or Path(os.devnull)).open("rb") as stdin:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCH), *binding, *command.argv),
                stdin=stdin,
                stdout=output,
                stderr=STDOUT,
                env={**os.environ, **command.env},
                cwd=command.cwd,
                start_new_session=True,
            )
        return cls(command, process, log, log_start)

    @property
    def pid(self) -> int:
        """Process id, also of its session and group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end, clear away what it left in its group, and give the exit code."""
        code = await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return code

    def kill(self) -> None:
        """Kill it and what it started in its group, without waiting for the end."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end, kill it after its time is up; safe to call twice."""
        if self.returncode is None:
            # Not by the process object: it would reap a child that just ended, its code lost.
            with suppress(ProcessLookupError):
                os.kill(self.pid, self._command.stop_signal)
            try:
                await asyncio.wait_for(self._process.wait(), self._command.stop_timeout_s)
            except TimeoutError:
                self.kill()
        await asyncio.wait_for(self.wait(), KILL_TIMEOUT_S)


def _opened(log: Path) -> BinaryIO:
    """Open a log for appending; a full one makes room first, keeping the last generation."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.is_file() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")


async def until_ready(part: Part, child: Child, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return once `part` serves; raises StackError when it ends or is not ready in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        ready = await part.is_ready()
        # Asked last: what answered may be somebody else at the same address.
        if child.returncode is not None:
            raise StackError(
                f"{part.name} ended with code {child.returncode} before it was ready",
                fix=f"Read {child.log}",
                detail=child.last_words,
            )
        if ready:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise StackError(
                f"{part.name} was not ready within {timeout_s:.0f} s",
                fix=f"Read {child.log}",
                detail=child.last_words,
            )
        await asyncio.sleep(READY_POLL_S)


async def run_to_end(command: Command, log: Path, what: str) -> None:
    """Run a program that ends by itself; raises StackError that names `what` when it fails."""
    child = await Child.start(command, log)
    try:
        code = await child.wait()
    finally:
        await child.stop()
    if code != 0:
        raise StackError(
            f"{what} failed with code {code}", fix=f"Read {log}", detail=child.last_words
        )


@asynccontextmanager
async def serving(part: P, *, report: Report = lambda _: None) -> AsyncIterator[P]:
    """Run one part by itself: it is ready in the body and gone after it.

    What tests use: `async with serving(KafkaServer(home=tmp_path, downloads=...)) as kafka:`.
    """
    child = await Child.start(await part.prepare(report), log_file(part.home, part.name))
    try:
        await until_ready(part, child)
        yield part
    finally:
        await child.stop()
