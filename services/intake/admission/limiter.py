"""Judges requests of keys with limits: all that wait at once in one statement, for all replicas."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from opentelemetry import metrics

from services.intake.admission.limits import Limits, Standing, Use, drained, take
from services.intake.errors import ApiError
from services.kit.clock import Clock
from services.kit.outages import DATABASE_OUTAGES

logger = logging.getLogger(__name__)
_MOST_KEPT = 10_000
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a key with limits; without `response_id` only a question how it stands."""

    key_id: str
    limits: Limits
    response_id: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """How many tokens a response used in the end, by what its key's limits are now."""

    response_id: str
    key_id: str
    limits: Limits
    tokens: int | None
    """None when nobody counted: the estimate stays."""


class LimitStore(Protocol):
    """What all replicas know of the use of keys."""

    async def take(self, asks: Sequence[Ask]) -> list[Standing]:
        """Judge requests one after the other, reserve what is admitted; one answer for each."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Replace reservations by what was used. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the store may take, how long it is left alone after it failed, how many wait."""

    answer_seconds: float = 0.5
    pause_seconds: float = 2.0
    batch: int = 500
    waiting: int = 10_000


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    answer: asyncio.Future[Standing] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class RateLimiter:
    """The limits of keys, right across replicas while the store answers.

    One statement is under way at a time; who comes meanwhile goes with the next. When the store
    does not answer in time, requests are judged by what this replica knows, so that a limit holds
    for each replica instead of for all together, and nobody waits for the store until it had a
    pause.
    """

    def __init__(self, store: LimitStore, clock: Clock, patience: Patience | None = None) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience or Patience()
        self._waiting: list[_Waiting] = []
        self._given_back: list[Settlement] = []
        self._known: OrderedDict[str, Use] = OrderedDict()
        self._alone_until = float("-inf")
        self._sender: asyncio.Task[None] | None = None
        meter = metrics.get_meter("antiphon")
        self._judged = meter.create_counter(
            "antiphon.intake.limits.judged",
            description="Requests of keys with limits, by outcome and by who judged",
        )

    async def admit(self, ask: Ask) -> Standing:
        """Return how the key stands once its request is admitted; raises `ApiError` (429).

        Until the response has ended it has reserved the tokens of the ask. The caller must
        `give_back` what it does not use after all.
        """
        standing = await self.standing(ask)
        if not standing.admitted:
            raise standing.refusal()
        return standing

    async def standing(self, ask: Ask) -> Standing:
        """Return the judgement of an ask; of one without a response only the figures count."""
        if self._clock.monotonic() < self._alone_until:
            return self._judge_alone(ask)
        if len(self._waiting) >= self._patience.waiting:
            raise ApiError(
                429,
                "Too many requests wait to be admitted on this server.",
                kind="rate_limit_error",
                code="server_overloaded",
                retry_after_seconds=1,
            )
        waiting = _Waiting(ask)
        self._waiting.append(waiting)
        self._wake()
        return await waiting.answer

    async def headers(self, ask: Ask) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers about how a key stands, none when even that is too much now."""
        try:
            return (await self.standing(ask)).headers()
        except ApiError:
            return ()

    async def run(
        self, ask: Ask, work: Callable[[], Awaitable[Result]]
    ) -> tuple[Result, tuple[tuple[bytes, bytes], ...]]:
        """Admit a request, then do its work; return the result and the headers for its answer.

        What fails gives back what was reserved, and its `ApiError` has the headers. Raises one of
        its own (429).
        """
        standing = await self.admit(ask)
        try:
            return await work(), standing.headers()
        except BaseException as error:
            self.give_back(ask)
            if isinstance(error, ApiError):
                error.headers = standing.headers()
            raise

    def give_back(self, ask: Ask) -> None:
        """Free the tokens of an admitted request that came to nothing, soon."""
        if ask.response_id is None or ask.limits.tokens_per_minute is None:
            return
        if len(self._given_back) < self._patience.waiting:
            self._given_back.append(Settlement(ask.response_id, ask.key_id, ask.limits, 0))
            self._wake()

    async def start(self) -> None:
        """Do nothing: the first request begins."""

    async def stop(self) -> None:
        """Let what is under way end."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    def _wake(self) -> None:
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name="rate limits")

    async def _send(self) -> None:
        """Send batch after batch until nobody waits."""
        try:
            while self._waiting or self._given_back:
                batch = self._waiting[: self._patience.batch]
                del self._waiting[: len(batch)]
                back, self._given_back = self._given_back, []
                await self._exchange(batch, back)
        finally:
            self._sender = None
            if self._waiting:
                self._wake()

    async def _exchange(self, batch: Sequence[_Waiting], back: Sequence[Settlement]) -> None:
        try:
            standings = await self._ask_store([waiting.ask for waiting in batch], back)
        except DATABASE_OUTAGES as error:
            logger.warning("rate limits are judged by this replica alone: %r", error)
            self._alone_until = self._clock.monotonic() + self._patience.pause_seconds
            standings = [self._judge_alone(waiting.ask) for waiting in batch]
        except BaseException:
            # After a bug nobody may wait for ever.
            for waiting in batch:
                waiting.answer.cancel()
            raise
        for waiting, standing in zip(batch, standings, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(standing)
            elif standing.admitted:
                self.give_back(waiting.ask)

    async def _ask_store(
        self, asks: Sequence[Ask], back: Sequence[Settlement]
    ) -> Sequence[Standing]:
        # Not a timeout around the call: a driver may take seconds to give up a hanging server.
        call = asyncio.create_task(self._call(asks, back), name="rate limits in the store")
        try:
            await asyncio.wait([call], timeout=self._patience.answer_seconds)
            if not call.done():
                raise TimeoutError("no answer in time")
        finally:
            if not call.done():
                call.add_done_callback(_pass_over)
                call.cancel()
        standings = call.result()
        for ask, standing in zip(asks, standings, strict=True):
            self._count(standing, "store")
            self._keep(ask, standing.use)
        return standings

    async def _call(self, asks: Sequence[Ask], back: Sequence[Settlement]) -> Sequence[Standing]:
        if back:
            await self._store.settle(back)
        return await self._store.take(asks) if asks else []

    def _judge_alone(self, ask: Ask) -> Standing:
        now = self._clock.monotonic()
        use = self._known.get(ask.key_id, Use(at=now))
        if ask.response_id is None:
            return Standing(
                ask.limits, admitted=True, use=drained(use, ask.limits, now=now), tokens=0
            )
        standing = take(use, ask.limits, tokens=ask.tokens, now=now)
        self._count(standing, "replica")
        self._keep(ask, standing.use)
        return standing

    def _keep(self, ask: Ask, use: Use) -> None:
        """Remember what is known last of a key, by this replica's own clock."""
        self._known[ask.key_id] = Use(use.requests, use.tokens, self._clock.monotonic())
        self._known.move_to_end(ask.key_id)
        if len(self._known) > _MOST_KEPT:
            self._known.popitem(last=False)

    def _count(self, standing: Standing, judge: str) -> None:
        outcome = "admitted" if standing.admitted else "refused"
        self._judged.add(1, {"outcome": outcome, "judge": judge})


def _pass_over(call: asyncio.Task[Sequence[Standing]]) -> None:
    """Take note of how an abandoned call ended, which nobody waits for any more."""
    if not call.cancelled():
        call.exception()
