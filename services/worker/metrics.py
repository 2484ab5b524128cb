"""The worker's own metrics, on prometheus_client: a record costs about a microsecond."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 1800)
_MOST_MODELS = 200
OTHER = "other"


def unregistered() -> WorkerMetrics:
    """Return metrics that nobody asks for."""
    return WorkerMetrics(CollectorRegistry())


class WorkerMetrics:
    """What is counted; one per process. Models beyond the first 200 are counted as `other`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._models: set[str] = set()
        # Looking a child up by its labels costs more than observing.
        self._of_calls: dict[tuple[str, str], Histogram] = {}
        self._of_ends: dict[tuple[str, str, str], Histogram] = {}
        self._responses = Histogram(
            "antiphon_worker_response_duration_seconds",
            "Responses that ended, from the start of their attempt",
            ["provider", "model", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_output = Histogram(
            "antiphon_worker_time_to_first_output_seconds",
            "From the start of a stream's attempt to its first output",
            ["provider", "model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._calls = Histogram(
            "antiphon_worker_upstream_duration_seconds",
            "Calls of providers until the end of their answer",
            ["provider", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._retries = Counter(
            "antiphon_worker_retries", "Further tries", ["provider"], registry=registry
        )
        self._fallbacks = Counter(
            "antiphon_worker_fallbacks",
            "Responses that went on to another provider, by the one that was left",
            ["provider"],
            registry=registry,
        )

    def ended(self, provider: str, model: str, outcome: str, seconds: float) -> None:
        """Count a response that ended."""
        labels = (provider, self._known(model), outcome)
        child = self._of_ends.get(labels)
        if child is None:
            child = self._of_ends[labels] = self._responses.labels(*labels)
        child.observe(seconds)

    def first_output(self, provider: str, model: str, seconds: float) -> None:
        """Record when the first output of a stream came."""
        self._first_output.labels(provider, self._known(model)).observe(seconds)

    def called(self, provider: str, outcome: str, seconds: float) -> None:
        """Record a call of a provider that ended."""
        labels = (provider, outcome)
        child = self._of_calls.get(labels)
        if child is None:
            child = self._of_calls[labels] = self._calls.labels(*labels)
        child.observe(seconds)

    def retried(self, provider: str) -> None:
        """Count a further try at the same provider."""
        self._retries.labels(provider).inc()

    def fell_back(self, provider: str) -> None:
        """Count a response that left this provider for the next."""
        self._fallbacks.labels(provider).inc()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` returns whenever metrics are asked for."""
        Gauge(f"antiphon_worker_{name}", text, registry=self._registry).set_function(read)

    def watch_each(
        self, name: str, text: str, readers: dict[str, Callable[[], float]], *, label: str
    ) -> None:
        """Show one value per label."""
        gauge = Gauge(f"antiphon_worker_{name}", text, [label], registry=self._registry)
        for value, read in readers.items():
            gauge.labels(value).set_function(read)

    def _known(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) >= _MOST_MODELS:
            return OTHER
        self._models.add(model)
        return model
