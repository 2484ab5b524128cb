"""What a stack is doing, as `state.json` in its home tells other processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

FILE = "state.json"


class State(StrEnum):
    """Of a part or of the whole stack."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"
    """A job, such as the migrations, that ended well."""
    EXTERNAL = "external"
    """A server that was given by its address; not ours to start or stop."""


@dataclass(slots=True)
class PartStatus:
    """One line of `antiphon status`."""

    name: str
    state: State = State.WAITING
    pid: int | None = None
    port: int | None = None
    restarts: int = 0
    log: str | None = None


@dataclass(slots=True)
class StackStatus:
    """The whole stack. `pid` and `started_at` (epoch seconds) identify its supervisor."""

    state: State
    pid: int
    started_at: float
    url: str
    model: str | None = None
    error: str | None = None
    parts: list[PartStatus] = field(default_factory=list)

    @property
    def overall(self) -> State:
        """Its state with that of its parts: not ready while one of them starts again."""
        whole = all(part.state in (State.READY, State.DONE, State.EXTERNAL) for part in self.parts)
        return State.RESTARTING if self.state is State.READY and not whole else self.state

    def supervisor(self) -> psutil.Process | None:
        """The supervisor's process; None when it is gone, even if its pid is used again."""
        try:
            process = psutil.Process(self.pid)
            return process if abs(process.create_time() - self.started_at) < 1 else None
        except psutil.NoSuchProcess:
            return None

    def write(self, home: Path) -> None:
        """Store it in `home` in one step, so that a reader never sees half of it."""
        file = home / FILE
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        draft.replace(file)


def read(home: Path) -> StackStatus | None:
    """Give the last stored status of the stack in `home`, None when it never ran there."""
    file = home / FILE
    if not file.is_file():
        return None
    stored = json.loads(file.read_text(encoding="utf-8"))
    parts = [PartStatus(**{**part, "state": State(part["state"])}) for part in stored.pop("parts")]
    return StackStatus(**{**stored, "state": State(stored["state"]), "parts": parts})


def running(home: Path) -> StackStatus | None:
    """Give the status of the stack in `home` if its supervisor lives, else None."""
    status = read(home)
    return status if status is not None and status.supervisor() is not None else None
