"""One try at one provider: what every way of asking it is given."""

from __future__ import annotations

from dataclasses import dataclass

from services.kit.clock import Clock
from services.worker.domain import Job
from services.worker.errors import UpstreamError
from services.worker.metrics import WorkerMetrics
from services.worker.outbox import OutStream
from services.worker.runs.outcome import Outcome, Progress, failed
from services.worker.runs.ownership import Leases, make_sure
from services.worker.runs.upstream import Upstream
from services.worker.runs.writer import EventWriter


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_turns: int
    max_event_bytes: int


@dataclass(frozen=True, slots=True)
class Try:
    """A job at a provider. Events up to `skip_through` were told; `progress` goes on with the run,
    from try to try.
    """

    job: Job
    out: OutStream
    upstream: Upstream
    skip_through: int
    progress: Progress
    limits: Limits
    clock: Clock
    metrics: WorkerMetrics
    leases: Leases

    async def make_sure(self) -> None:
        """Return when the provider may be asked; raises `LeaseLostError`."""
        await make_sure(self.leases, self.job)

    def failed(self, error: UpstreamError, *, told: int | None = None) -> Outcome:
        """Return the outcome of a try that told nothing but how the response begins, if that."""
        through = self.skip_through if told is None else max(told, self.skip_through)
        silent = EventWriter(None, skip_through=through, begin=self.progress.boundary)
        provider = self.upstream.config.name
        spent = self.progress.spent
        return failed(self.job, error, provider, silent, self.clock.now(), spent=spent)

    def now(self) -> int:
        """Return the time as the API's objects have it."""
        return int(self.clock.now().timestamp())
