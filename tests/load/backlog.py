"""Many background responses: hand them in, then look at each of them when all have ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import orjson

CONNECTIONS = 16
TIMEOUT_S = 60.0
MOST_RETRIES = 20
RETRY_S = 0.5


class Backlog:
    """Background responses number 0 to n; `ids` has an entry for each that was accepted."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/responses"
        self.ids: dict[int, str] = {}
        self.errors: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def opened(cls, base_url: str, api_key: str) -> AsyncIterator[Backlog]:
        """Give one over a few connections."""
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {api_key}"},
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            json_serialize=lambda value: orjson.dumps(value).decode(),
        ) as session:
            yield cls(session, base_url)

    async def submit(self, number: int, model: str) -> None:
        """Hand in so many; what is refused for now is tried again, with a bound."""

        async def one(token: int) -> None:
            body = {"model": model, "background": True, "input": f"token={token:010} background"}
            for _ in range(MOST_RETRIES):
                async with self._session.post(self._url, json=body) as answer:
                    found = await answer.read()
                if answer.status == HTTPStatus.OK:
                    self.ids[token] = orjson.loads(found)["id"]
                    return
                if answer.status not in (429, 503):
                    break
                await asyncio.sleep(RETRY_S)
            self.errors[f"refused_{answer.status}"] += 1

        await self._each(one, range(number))

    async def check(self) -> Counter[str]:
        """Count the states of all that were accepted; `foreign` has not its own token."""
        states: Counter[str] = Counter()

        async def one(token: int) -> None:
            async with self._session.get(f"{self._url}/{self.ids[token]}") as answer:
                found = await answer.read()
            if answer.status != HTTPStatus.OK:
                states[f"http_{answer.status}"] += 1
                return
            status = str(orjson.loads(found)["status"])
            own = status != "completed" or b"%010d" % token in found
            states[status if own else "foreign"] += 1

        await self._each(one, list(self.ids))
        return states

    async def _each(self, ask: Callable[[int], Awaitable[None]], numbers: Sequence[int]) -> None:
        left = iter(numbers)

        async def client() -> None:
            for number in left:
                try:
                    await ask(number)
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.errors[type(error).__name__] += 1

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
