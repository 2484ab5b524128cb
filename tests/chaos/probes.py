"""Whether the whole works: one request of each kind through each intake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiohttp import ClientError, ClientSession, ClientTimeout

PROBE_TIMEOUT_S = 8.0
POLL_S = 0.1
MODEL = "gpt-4o-mini"
TEXT = "probe"


class Probes:
    """Asks every intake; within the block of its context."""

    def __init__(self, intakes: Sequence[str], admin_key: str) -> None:
        self._intakes = intakes
        self._http = ClientSession(
            headers={"authorization": f"Bearer {admin_key}"},
            timeout=ClientTimeout(total=PROBE_TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def recovered(self, *, since: float, within_s: float) -> tuple[float | None, str]:
        """Return how long after `since` (monotonic) all was well, and what was not until then.

        A kind at an intake that was well once is not asked again. None when something is still not
        well `within_s` seconds later.
        """
        waiting = {
            f"{kind} at {intake}": (ask, intake)
            for intake in self._intakes
            for kind, ask in (
                ("JSON", self._json),
                ("a stream", self._stream),
                ("a background response", self._background),
            )
        }
        last = ""
        while waiting:
            names = list(waiting)
            told = await asyncio.gather(*(self._try(*waiting[name]) for name in names))
            for name, problem in zip(names, told, strict=True):
                if problem is None:
                    del waiting[name]
                else:
                    last = f"{name}: {problem}"
            if waiting:
                if time.monotonic() - since > within_s:
                    return None, last
                await asyncio.sleep(POLL_S)
        return time.monotonic() - since, last

    async def _try(self, ask: object, intake: str) -> str | None:
        assert callable(ask)
        try:
            problem: str | None = await ask(intake)
        except TimeoutError:
            return f"nothing within {PROBE_TIMEOUT_S:g} s"
        except (ClientError, ConnectionError, ValueError, KeyError) as error:
            return repr(error)
        return problem

    async def _json(self, intake: str) -> str | None:
        body = {"model": MODEL, "input": f"say: {TEXT}"}
        async with self._http.post(f"{intake}/v1/responses", json=body) as answer:
            if answer.status != 200:
                return f"{answer.status} {(await answer.text())[:200]}"
            status = (await answer.json())["status"]
        return None if status == "completed" else f"it ended as {status}"

    async def _stream(self, intake: str) -> str | None:
        body = {"model": MODEL, "input": f"say: {TEXT}", "stream": True}
        async with self._http.post(f"{intake}/v1/responses", json=body) as answer:
            told = await answer.text()
        if answer.status != 200:
            return f"{answer.status} {told[:200]}"
        return None if "response.completed" in told else f"it ended with {told[-200:]}"

    async def _background(self, intake: str) -> str | None:
        body = {"model": MODEL, "input": f"say: {TEXT}", "background": True}
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            async with self._http.post(f"{intake}/v1/responses", json=body) as answer:
                if answer.status != 200:
                    return f"{answer.status} {(await answer.text())[:200]}"
                response = await answer.json()
            path = f"{intake}/v1/responses/{response['id']}"
            while response["status"] in ("queued", "in_progress"):
                await asyncio.sleep(POLL_S)
                async with self._http.get(path) as answer:
                    if answer.status == 200:
                        response = await answer.json()
        return None if response["status"] == "completed" else f"it ended as {response['status']}"
