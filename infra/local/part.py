"""What the supervisor and the tests need to know of a program, and nothing of how it works."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from infra.local.downloads import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """How to run a program.

    `env` is added to the inherited environment. `user` is a uid and gid to drop to. `stop_signal`
    asks it to end, `stop_timeout_s` later it is killed; the kernel sends `death_signal` to it when
    the process that started it dies.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stdin: Path | None = None
    user: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    stop_timeout_s: float = 20.0


class Part(Protocol):
    """A program of the local stack; `infra.local.process.serving` runs one by itself."""

    @property
    def name(self) -> str:
        """Unique in a stack: names its log, its port and its line in the status."""

    @property
    def port(self) -> int | None:
        """Where it listens on 127.0.0.1; None before `prepare` has chosen one."""

    @property
    def home(self) -> Path:
        """The folder with its data, its configuration and `logs/<name>.log`."""

    async def prepare(self, report: Report) -> Command:
        """Make it ready to run and say how; idempotent, called before every start.

        The first call may fetch and format things, and report so. Raises StackError.
        """

    async def is_ready(self) -> bool:
        """Whether it serves now; answers within a second and never raises for a `no`."""

    def environment(self) -> dict[str, str]:
        """What those who use it need in their environment; valid after `prepare`."""
