"""The costs service as a process of its own, and what it tells others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from contracts.topics import COSTS_RECORDED, RESPONSES_LIFECYCLE
from infra.local.ports import free_port
from services.kit.deadletters import DeadLetters, Record
from services.kit.producer import Producer
from services.kit.tail import Tail

ROOT = Path(__file__).parents[3]
TOKEN = "the-shared-secret"
BOUND_SECONDS = 60.0
PAUSE_SECONDS = 0.05


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Return when the condition holds; raises `TimeoutError` after a minute."""
    for _ in range(int(BOUND_SECONDS / PAUSE_SECONDS)):
        if await condition():
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise TimeoutError(f"{condition.__name__} did not become true")


class CostsProcess:
    """`python -m services.costs.main` on a free port; `start` again continues its group."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._port = free_port()
        self._environment = {**environment, "COSTS_PORT": str(self._port)}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.costs.main"),
                env={**os.environ, **self._environment},
                cwd=ROOT,
                stderr=log,
            )
        await until(self._ready)

    async def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()
        with suppress(aiohttp.ClientError):
            return (await self.get("/readyz"))[0] == 200
        return False

    async def end(self, number: signal.Signals) -> int:
        """Send the signal and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(BOUND_SECONDS):
            return await self._process.wait()

    async def get(self, path: str, *, project: str = "", **params: str) -> tuple[int, Any]:
        """Ask as intake does, for a key of the project."""
        headers = {"authorization": f"Bearer {TOKEN}", "x-antiphon-project": project}
        url = f"http://127.0.0.1:{self._port}{path}"
        async with (
            aiohttp.ClientSession() as http,
            http.get(url, params=params, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None)


class Listener:
    """Remembers the cost facts and the dead letters that come from now on."""

    def __init__(self, bootstrap: str, producer: Producer) -> None:
        self.facts: list[Record] = []
        self.dead_letters: list[Record] = []
        letters = DeadLetters(producer, service="costs-tests")
        self._tails = [
            Tail(
                bootstrap,
                topic=topic,
                partitions=range(partitions),
                on_record=records.append,
                dead_letters=letters,
            )
            for topic, partitions, records in (
                (COSTS_RECORDED.name, COSTS_RECORDED.partitions, self.facts),
                (RESPONSES_LIFECYCLE.dead_letters, 1, self.dead_letters),
            )
        ]

    async def start(self) -> None:
        """Listen from now on."""
        for tail in self._tails:
            await tail.start()

    async def stop(self) -> None:
        """Listen no more."""
        for tail in self._tails:
            await tail.stop()
