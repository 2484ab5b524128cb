"""What stands before each call of a provider: its breaker, its places, and who counts."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from opentelemetry.trace import Span

from contracts.providers import ProviderConfig
from services.worker.errors import ProviderBusyError, ProviderOpenError, UpstreamError
from services.worker.metrics import WorkerMetrics
from services.worker.providers.breaker import Breaker, BreakerRule, State
from services.worker.tracing import Tracing, end_call

_RETRY_AFTER_SECONDS = 1.0


class Guard:
    """Admits calls of one provider in this process; safe for concurrent use."""

    def __init__(self, config: ProviderConfig, metrics: WorkerMetrics | None = None) -> None:
        self._config = config
        self.metrics = metrics
        self.tracing: Tracing | None = None
        self.breaker = Breaker(
            BreakerRule(
                failures=config.breaker_failures,
                rate=config.breaker_failure_rate,
                min_calls=config.breaker_min_calls,
                window_seconds=config.breaker_window_seconds,
                open_seconds=config.breaker_open_seconds,
                probes=config.breaker_probes,
            )
        )
        most = config.max_concurrency
        self._places = None if most is None else asyncio.Semaphore(most)
        self.open_calls = 0

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._config.name

    @property
    def limited(self) -> bool:
        """Whether `place` must be awaited before `call`."""
        return self._places is not None

    def breaker_state(self) -> State:
        """Return the breaker's state now."""
        return self.breaker.state(time.monotonic())

    def calls_under_way(self) -> int:
        """Return how many calls have not ended."""
        return self.open_calls

    async def place(self) -> None:
        """Wait for one of the provider's places; the next `call` frees it in any case.

        Raises `ProviderBusyError` when none got free in time.
        """
        places = self._places
        assert places is not None
        if not places.locked():
            await places.acquire()
            return
        try:
            async with asyncio.timeout(self._config.concurrency_wait_seconds):
                await places.acquire()
        except TimeoutError as error:
            raise ProviderBusyError(
                f"The provider {self.name} has as many requests as it may have.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error

    def call(self) -> Call:
        """Return the block in which one call is made; how it ends is how the call ended.

        Raises `ProviderOpenError` while the breaker is open.
        """
        now = time.monotonic()
        ticket = self.breaker.admit(now)
        if ticket is None:
            self.leave()
            raise ProviderOpenError(
                f"The provider {self.name} failed too often and is not asked for a while.",
                retry_after_seconds=max(self.breaker.opens_in(now), _RETRY_AFTER_SECONDS),
            )
        self.open_calls += 1
        span = self.tracing and self.tracing.call(self.name, self._config.base_url)
        return Call(self, ticket, now, span or None)

    def leave(self) -> None:
        """Free a place."""
        if self._places is not None:
            self._places.release()


class Call:
    """One admitted call."""

    __slots__ = ("_answered", "_began", "_guard", "_settled", "_span", "_ticket")

    def __init__(self, guard: Guard, ticket: int, began: float, span: Span | None) -> None:
        self._guard = guard
        self._span = span
        self._ticket = ticket
        self._began = began
        self._answered = self._settled = False

    def answered(self) -> None:
        """Note that the provider began to answer, with success."""
        self._answered = True
        self._settled = self._guard.breaker.answered(self._ticket, time.monotonic())

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed, outcome = self._verdict(error)
        guard = self._guard
        guard.open_calls -= 1
        guard.leave()
        ended = time.monotonic()
        if not self._settled:
            guard.breaker.settle(self._ticket, failed=failed, now=ended)
        if guard.metrics is not None:
            guard.metrics.called(guard.name, outcome, ended - self._began)
        if self._span is not None:
            end_call(self._span, outcome)

    def _verdict(self, error: BaseException | None) -> tuple[bool | None, str]:
        """Say what the end tells about the provider's health, and its name in metrics."""
        if error is None or isinstance(error, GeneratorExit):
            # A reader that has seen the end of the answer leaves so, too.
            return False, "answered"
        if not isinstance(error, UpstreamError):
            return (False if self._answered else None), "cancelled"
        if error.status == 429:
            # It works, and it has enough to do.
            return None, "rate_limited"
        if error.status >= 500:
            return True, "timeout" if error.status == 504 else "failed"
        return False, "refused"
