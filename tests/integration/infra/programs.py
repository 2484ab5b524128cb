"""Small programs for the supervisor to run, and what to wait for."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from infra.local.downloads import Report
from infra.local.part import Command

BOUND_S = 20.0

# Says that it runs, then waits; on SIGTERM it says goodbye.
PROGRAM = """
import pathlib, signal, sys, os
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def end(*_):
    with open(folder / "events", "a") as f: f.write(f"{name} ended\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with open(folder / "events", "a") as f: f.write(f"{name} began\\n")
(folder / name).write_text(str(os.getpid()))
while True: signal.pause()
"""


class ProgramPart:
    """A part that is ready once its program has written its file."""

    port: int | None = None

    def __init__(self, name: str, home: Path, *, source: str = PROGRAM) -> None:
        self.name = name
        self.home = home
        self.source = source

    def environment(self) -> dict[str, str]:
        return {}

    async def prepare(self, report: Report) -> Command:
        (self.home / self.name).unlink(missing_ok=True)
        return Command(argv=(sys.executable, "-c", self.source, str(self.home), self.name))

    async def is_ready(self) -> bool:
        return (self.home / self.name).exists()


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds; raises TimeoutError when it doesn't in time."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)
