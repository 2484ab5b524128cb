"""The proxy as its owner sees it: started with routes, given orders, gone at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos.proxy.links import Trouble

ROOT = Path(__file__).parents[3]
ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Route:
    """Ports on this machine: where the proxy listens, and where the server does."""

    listen: int
    target: int


class ProxyProcess:
    """Pumps bytes along named routes; use it as an asynchronous context manager."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)
        self._process: Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        routes = {name: [route.listen, route.target] for name, route in self._routes.items()}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.proxy", json.dumps(routes)),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        await self._answer()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), ANSWER_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def impose(self, route: str, trouble: Trouble, pids: Collection[int] = ()) -> int:
        """Trouble a route, or what these processes have on it; return the links that were hit."""
        order = {"do": "impose", "route": route, "trouble": asdict(trouble), "pids": [*pids]}
        return int((await self._order(order))["links"])

    async def heal(self, *routes: str) -> None:
        """End the trouble of these routes, of all when none is named."""
        for route in routes or self._routes:
            await self._order({"do": "heal", "route": route})

    async def links(self) -> dict[str, int]:
        """Return how many connections each route has."""
        return await self._order({"do": "count"})

    async def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_TIMEOUT_S)
        if not line:
            raise ConnectionError(f"the proxy ended with {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
