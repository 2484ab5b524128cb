"""The load of a run: many clients that come at random, reproducibly, and how they are stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import httpx2
from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.chaos.load.client import CONNECT_S, Clients, timeouts
from tests.chaos.load.counting import LABEL
from tests.chaos.load.hooks import Hooks
from tests.chaos.load.log import Log
from tests.chaos.load.scenarios import SCENARIOS, run

MAX_CLIENTS = 300
PATIENCE_S = 60.0
_TOOLS_TIMEOUT_S = 60.0
_POLL_S = 0.1
_READ_BUFFER = 4 * 1024 * 1024


class Load:
    """Clients of a stack. `intakes` are base URLs without `/v1`, `rate` is clients per second.

    `executions` is the file that the counting MCP server of the stack writes (`counting.py`);
    without it no client uses tools. `patience` is how long, in seconds, a client bears silence:
    longer than any outage. Use it within one event loop: `start`, `stop`, read `log`. Webhooks are
    heard until `check` is done.
    """

    def __init__(
        self,
        *,
        intakes: Sequence[str],
        admin_key: str,
        upstream_control_url: str,
        seed: int,
        rate: float,
        executions: Path | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        self.log = Log()
        self.hooks = Hooks()
        self.executions = executions
        self.upstream_control_url = upstream_control_url
        self._intakes = [one.rstrip("/") for one in intakes]
        self._admin_key = admin_key
        self._rate = rate
        self._patience = patience
        self._random = random.Random(seed)
        self._clients: Clients | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._arrivals: asyncio.Task[None] | None = None
        self._closing: list[AsyncOpenAI] = []

    @property
    def open_clients(self) -> int:
        """How many clients are at it now."""
        return len(self._open)

    async def start(self) -> None:
        """Let clients come until `stop`; raises TimeoutError when the tools are not there."""
        sdks = {intake: self._sdk(intake) for intake in self._intakes}
        self._closing = list(sdks.values())
        http = ClientSession(
            headers={"authorization": f"Bearer {self._admin_key}"},
            timeout=timeouts(self._patience),
            read_bufsize=_READ_BUFFER,
        )
        self._clients = Clients(
            intakes=self._intakes,
            sdks=sdks,
            http=http,
            log=self.log,
            random=self._random,
            patience=self._patience,
        )
        await self.hooks.start(self._closing[0])
        if self.executions is not None:
            await self._offered(http)
        self._arrivals = asyncio.create_task(self._arrive(self._clients))

    async def _offered(self, http: ClientSession) -> None:
        """Wait until the counting tool can be called."""
        async with asyncio.timeout(_TOOLS_TIMEOUT_S):
            while True:
                async with http.get(f"{self._intakes[0]}/v1/mcp/servers") as answer:
                    servers = (await answer.json())["data"] if answer.status == 200 else []
                if any((s["server_label"], s["status"]) == (LABEL, "ready") for s in servers):
                    return
                await asyncio.sleep(_POLL_S)

    async def stop(self, grace_seconds: float) -> None:
        """Let no more clients come and wait for the rest; who is not done in time hangs."""
        clients = self._clients
        assert clients is not None
        assert self._arrivals is not None
        clients.stopping.set()
        self._arrivals.cancel()
        await asyncio.wait([self._arrivals])
        left = set(self._open)
        if left:
            _, left = await asyncio.wait(left, timeout=grace_seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        for asked in self.log.asked:
            if asked.outcome == "open":
                asked.end("hung", f"no end within {grace_seconds:g} s after the load")
        await clients.http.close()
        for sdk in self._closing:
            await sdk.close()

    def _sdk(self, intake: str) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{intake}/v1",
            api_key=self._admin_key,
            max_retries=0,
            timeout=httpx2.Timeout(self._patience, connect=CONNECT_S),
            _strict_response_validation=True,
        )

    async def _arrive(self, clients: Clients) -> None:
        scenarios = [s for s in SCENARIOS if self.executions is not None or not s.needs_tools]
        weights = [scenario.weight for scenario in scenarios]
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._random.expovariate(self._rate)
            await asyncio.sleep(max(0.0, due - loop.time()))
            [scenario] = self._random.choices(scenarios, weights)
            if len(self._open) >= MAX_CLIENTS:
                self.log.skipped += 1
                continue
            task = asyncio.create_task(run(clients, scenario))
            self._open.add(task)
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.broken.append(error)
