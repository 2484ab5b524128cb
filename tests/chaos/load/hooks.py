"""An endpoint that is told of the end of background responses, and what it was told."""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import AsyncExitStack

import orjson
from openai import AsyncOpenAI, BadRequestError

from tests.webhook_receiver import Receiver, receiving

logger = logging.getLogger(__name__)
_PATH = "chaos"


class Hooks:
    """Takes webhooks while a run lasts; where the stack allows no such endpoint there are none."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._stack = AsyncExitStack()

    async def start(self, client: AsyncOpenAI) -> None:
        """Open the endpoint and have the stack know it."""
        receiver = await self._stack.enter_async_context(receiving())
        try:
            await client.webhooks.create(
                name=_PATH,
                url=receiver.url(_PATH),
                event_types=[
                    "response.completed",
                    "response.failed",
                    "response.incomplete",
                    "response.cancelled",
                ],
            )
        except BadRequestError as error:
            logger.warning("no webhooks in this run: %s", error)
            return
        self._receiver = receiver

    async def stop(self) -> None:
        """Take no more of them."""
        await self._stack.aclose()

    def told(self) -> dict[str, set[str]] | None:
        """Return the types of events by response; None without an endpoint."""
        if self._receiver is None:
            return None
        found: dict[str, set[str]] = defaultdict(set)
        for one in self._receiver.at(_PATH):
            event = orjson.loads(one.body)
            found[event["data"]["id"]].add(event["type"])
        return found
