"""The local stack as one thing: one at a time per home, its status on disk, its start and end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.plan import Plan
from infra.local.ports import free_port, is_free
from infra.local.settings import LocalSettings
from infra.local.state import PartStatus, StackStatus, State
from infra.local.supervisor import Supervisor
from infra.local.upstream import Upstream, choose

NEEDED_BYTES = 256 * 1024 * 1024
"""A start with less free space than this would end in a broker that stops on its first write."""


class Stack:
    """A running stack; made by `running_stack`."""

    def __init__(self, settings: LocalSettings, upstream: Upstream, report: Report) -> None:
        plan = Plan(settings, upstream)
        self.settings = settings
        self.upstream = upstream
        self.admin_key = plan.admin_key
        self._report = report
        self.supervisor = Supervisor(plan.steps(), report=report, changed=self._on_change)
        started_at = psutil.Process().create_time()
        self.status = StackStatus(
            State.STARTING,
            os.getpid(),
            started_at,
            settings.url,
            model=upstream.model,
            parts=list(self.supervisor.status.values()),
        )

    def set_state(self, state: State, error: str | None = None) -> None:
        """Store the state of the whole."""
        self.status.state = state
        self.status.error = error
        self.status.write(self.settings.home)

    def _on_change(self, part: PartStatus) -> None:
        self.status.write(self.settings.home)
        if part.state in (State.READY, State.DONE):
            where = f" on port {part.port}" if part.port else ""
            self._report(f"{part.name}: {part.state}{where}")


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "stack.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"A stack is already running in {home}",
                fix="Look at it with `antiphon status`, or stop it with `antiphon down` first",
            ) from error
        yield


def _check_machine(settings: LocalSettings) -> None:
    free_bytes = shutil.disk_usage(settings.home).free
    if free_bytes < NEEDED_BYTES:
        raise StackError(
            f"The disk of {settings.home} has only {free_bytes // 1_000_000} MB free",
            fix="Free some space or set ANTIPHON_HOME to a folder on a larger disk",
        )
    if not is_free(settings.antiphon_port, settings.antiphon_host):
        raise StackError(
            f"Port {settings.antiphon_port} is taken by another program",
            fix=f"Stop that program, or choose another port with ANTIPHON_PORT={free_port()}",
        )


def _home_of(settings: LocalSettings) -> Path:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"The folder {settings.home} can't be made: {error.strerror}",
            fix="Set ANTIPHON_HOME to a folder that you may write to",
        ) from error
    return settings.home


@asynccontextmanager
async def running_stack(settings: LocalSettings, report: Report) -> AsyncIterator[Stack]:
    """Start a stack, give it when every part is ready, stop it after the body.

    Raises StackError when it can't start; then nothing of it is left running. Must be used in the
    main thread, on which the life of its processes depends.
    """
    with _only_one(_home_of(settings)):
        _check_machine(settings)
        stack = Stack(settings, choose(settings), report)
        stack.set_state(State.STARTING)
        error = None
        try:
            await stack.supervisor.start()
            stack.set_state(State.READY)
            yield stack
        except StackError as problem:
            error = str(problem)
            raise
        finally:
            stack.set_state(State.STOPPING, error)
            await stack.supervisor.stop()
            stack.set_state(State.FAILED if error else State.STOPPED, error)
