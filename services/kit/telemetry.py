"""OpenTelemetry: metrics for Prometheus always, traces to OTLP when an endpoint is set."""

from __future__ import annotations

from importlib.metadata import entry_points

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def configure_telemetry(*, service: str, otlp_endpoint: str | None) -> None:
    """Install the providers of this process; call once, in the composition root.

    Without an endpoint no span is recorded, so tracing costs the hot path nothing.
    """
    resource = Resource.create({"service.name": service, "service.namespace": "antiphon"})
    metrics.set_meter_provider(
        MeterProvider(
            resource=resource,
            metric_readers=[PrometheusMetricReader()],
            # The Prometheus text has no exemplars: choosing them would only cost time.
            exemplar_filter=AlwaysOffExemplarFilter(),
        )
    )
    if otlp_endpoint:
        provider = TracerProvider(resource=resource)
        # Found as OpenTelemetry finds it: protobuf and requests are 6 MB that only traces need.
        (point,) = entry_points(group="opentelemetry_traces_exporter", name="otlp_proto_http")
        exporter = point.load()(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)


def current_traceparent() -> str | None:
    """Return the W3C `traceparent` of the span at hand, for a message's envelope."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def span_from(name: str, traceparent: str | None) -> trace.Span:
    """Start a span that continues the trace of a message; the caller ends it."""
    context = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    return trace.get_tracer("antiphon").start_span(name, context=context)
