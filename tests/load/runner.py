"""The load generator as a process: start it, wait for its window, read what it counted."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from infra.local.errors import StackError
from infra.local.settings import CHECKOUT
from tests.load.generator import Load

START_S = 60.0


class Generating:
    """A generator at work; `begin_s` is when its window begins, on the monotonic clock."""

    def __init__(self, process: Process, begin_s: float, seconds: float) -> None:
        self._process = process
        self.begin_s = begin_s
        self._seconds = seconds

    async def begin(self) -> None:
        """Return at the begin of the window."""
        await asyncio.sleep(self.begin_s - time.monotonic())

    async def end(self) -> None:
        """Return at the end of the window; answers may still be open."""
        await asyncio.sleep(self.begin_s + self._seconds - time.monotonic())

    async def counted(self) -> dict[str, Any]:
        """Wait for the open answers and give what it counted."""
        return await _line(self._process)


@asynccontextmanager
async def generating(load: Load) -> AsyncIterator[Generating]:
    """Run one; raises StackError when it ends early and TimeoutError when it does not end."""
    argv = (sys.executable, "-m", "tests.load.generator", json.dumps(asdict(load)))
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, cwd=CHECKOUT)
    try:
        async with asyncio.timeout(START_S + load.warmup_s + load.seconds + load.drain_s):
            yield Generating(process, (await _line(process))["begin_s"], load.seconds)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    if not (line := await process.stdout.readline()):
        raise StackError("The load generator ended early", fix="Read what it wrote above")
    return dict(json.loads(line))
