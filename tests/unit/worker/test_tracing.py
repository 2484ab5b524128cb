"""Spans of a response and its calls: one trace, with the names of OpenTelemetry for GenAI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contracts.providers import ProviderConfig
from services.worker.errors import UpstreamError
from services.worker.providers.guard import Guard
from services.worker.tracing import SILENT, Tracing
from tests.unit.worker.runs import job

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def guard(tracing: Tracing) -> Guard:
    made = Guard(ProviderConfig(name="first", base_url="http://nowhere/v1"))
    made.tracing = tracing
    return made


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_response_and_its_calls_are_one_trace(spans: InMemorySpanExporter) -> None:
    tracing = Tracing(enabled=True)
    with tracing.response(replace(job(), traceparent=PARENT)) as response:
        with guard(tracing).call():
            pass
        response.ended(
            {
                "model": "gpt-5.1-2026",
                "status": "completed",
                "usage": {"input_tokens": 3, "output_tokens": 5},
            },
            "first",
        )
    call, whole = spans.get_finished_spans()
    assert call.name == "chat gpt-5.1"
    assert attributes(call)["gen_ai.provider.name"] == "first"
    assert call.parent is not None
    assert whole.context is not None
    assert call.parent.span_id == whole.context.span_id
    assert f"{whole.context.trace_id:032x}" == TRACE_ID
    assert attributes(whole) | {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.response.id": "resp_ours",
        "gen_ai.response.model": "gpt-5.1-2026",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
    } == attributes(whole)


def test_a_call_that_fails_says_how(spans: InMemorySpanExporter) -> None:
    tracing = Tracing(enabled=True)
    with pytest.raises(UpstreamError), guard(tracing).call():
        raise UpstreamError("no", status=504)
    [call] = spans.get_finished_spans()
    assert attributes(call)["error.type"] == "timeout"
    assert not call.status.is_ok


def test_without_an_endpoint_there_is_nothing(spans: InMemorySpanExporter) -> None:
    tracing = Tracing(enabled=False)
    assert tracing.response(job()) is SILENT
    with guard(tracing).call():
        pass
    assert spans.get_finished_spans() == ()
