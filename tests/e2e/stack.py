"""A local stack of its own, run as `antiphon up` runs it, with every process in reach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.local.credentials import Credentials
from infra.local.ports import HOST
from infra.local.process import LAUNCH, log_file, tail
from infra.local.state import PartStatus, StackStatus, State, read
from tests.e2e.waiting import until

SERVICES = ("intake", "worker", "mcp_broker", "artifacts", "costs", "webhooks")
ROOT = Path(__file__).parents[2]
UP = (sys.executable, "-m", "infra.cli.main", "up")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.05
# What a person may have set for a stack of his own must not reach this one.
FOREIGN = (
    *("UPSTREAM_", "OPENAI_", "S3_", "KAFKA_", "DATABASE_", "ANTIPHON_", "BLOB_", "LOG_"),
    *("INTAKE_", "WORKER_", "MCP_BROKER_", "ARTIFACTS_", "COSTS_", "WEBHOOKS_"),
)


class Stack:
    """A running stack; its parts have the names that `antiphon status` shows."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.admin_key = Credentials.of(home).admin_key

    @property
    def kafka_bootstrap(self) -> str:
        """The address of its broker."""
        return f"{HOST}:{self.part('kafka').port}"

    def part(self, name: str) -> PartStatus:
        """The state of a part, as its supervisor last wrote it."""
        return next(part for part in self._status().parts if part.name == name)

    def _status(self) -> StackStatus:
        status = read(self.home)
        assert status is not None
        return status

    def pid(self, name: str) -> int:
        """The process of a part that runs."""
        pid = self.part(name).pid
        assert pid is not None
        return pid

    def kill(self, name: str) -> int:
        """Kill a part at once and return the id that its process had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def ready_again(self, name: str, *, after: int) -> None:
        """Wait until the part whose process `after` was killed has a new one that is ready."""

        def is_ready() -> bool:
            part = self.part(name)
            return part.state is State.READY and part.pid != after

        await until(is_ready, f"{name} is ready again")

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stop a part from doing anything within the block, as a machine that hangs."""
        pid = self.pid(name)
        # The parent first: it makes no further children then.
        os.kill(pid, signal.SIGSTOP)
        processes = [pid, *_children(pid)]
        try:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)


def _children(parent: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                status = (folder / "status").read_text()
                if f"\nPPid:\t{parent}\n" in status:
                    yield int(folder.name)


@contextmanager
def running_stack(home: Path, port: int, settings: Mapping[str, str]) -> Iterator[Stack]:
    """Start a stack with these variables, and stop it after the block."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    own = {"ANTIPHON_HOME": str(home), "ANTIPHON_PORT": str(port), "NO_COLOR": "1"}
    log = log_file(home, "supervisor")
    log.parent.mkdir(parents=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            # It ends in order even when the tests are killed.
            (sys.executable, str(LAUNCH), str(os.getpid()), str(int(signal.SIGTERM)), "-", *UP),
            cwd=ROOT,
            env={**inherited, **own, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, home)
        yield Stack(home, f"http://{HOST}:{port}")
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
    assert process.returncode == 0, tail(log, 20)


def _wait_until_ready(process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (status := read(home)) is None or status.state is not State.READY:
        words = tail(log_file(home, "supervisor"), 20)
        assert process.poll() is None, f"the stack did not start:\n{words}"
        assert time.monotonic() < deadline, f"the stack was not ready in time:\n{words}"
        time.sleep(POLL_S)
