"""Spans of responses and of the calls of providers, with OpenTelemetry's names for GenAI."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from services.kit.telemetry import span_from
from services.worker.domain import Job

_MODEL: ContextVar[str] = ContextVar("model", default="")


class ResponseSpan:
    """The block in which one response is run; without tracing it does nothing."""

    def __enter__(self) -> ResponseSpan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def ended(self, response: dict[str, Any], provider: str) -> None:
        """Note how the response ended."""


SILENT = ResponseSpan()


class _TracedResponse(ResponseSpan):
    def __init__(self, job: Job) -> None:
        command = job.command
        self._span = span_from(f"invoke_agent {command.model}", job.traceparent)
        self._span.set_attributes(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.request.model": command.model,
                "gen_ai.response.id": command.response_id,
                "antiphon.attempt": job.attempt,
                "antiphon.background": command.background,
            }
        )
        if command.conversation_id is not None:
            self._span.set_attribute("gen_ai.conversation.id", command.conversation_id)
        self._tokens: tuple[Token[Any], Token[str]] | None = None
        self._model = command.model

    def __enter__(self) -> ResponseSpan:
        current = contexts.attach(trace.set_span_in_context(self._span))
        self._tokens = (current, _MODEL.set(self._model))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tokens is not None:
            contexts.detach(self._tokens[0])
            _MODEL.reset(self._tokens[1])
        if error is not None:
            _fail(self._span, type(error).__name__)
        self._span.end()

    def ended(self, response: dict[str, Any], provider: str) -> None:
        span = self._span
        span.set_attribute("gen_ai.provider.name", provider)
        span.set_attribute("gen_ai.response.model", str(response.get("model")))
        span.set_attribute("gen_ai.response.finish_reasons", [str(response.get("status"))])
        usage = response.get("usage")
        if isinstance(usage, dict):
            for name in ("input_tokens", "output_tokens"):
                if isinstance(usage.get(name), int):
                    span.set_attribute(f"gen_ai.usage.{name}", usage[name])
        if response.get("status") == "failed":
            failure = response.get("error")
            _fail(span, str(failure.get("code")) if isinstance(failure, dict) else "failed")


class Tracing:
    """Makes spans when traces go somewhere, and nothing at all otherwise."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def response(self, job: Job) -> ResponseSpan:
        """Return the block to run a response in; it goes on with the trace of its command."""
        return _TracedResponse(job) if self._enabled else SILENT

    def call(self, provider: str, base_url: str) -> trace.Span | None:
        """Start the span of one call of a provider, within the response at hand; None without."""
        if not self._enabled:
            return None
        model = _MODEL.get()
        return trace.get_tracer("antiphon").start_span(
            f"chat {model}".rstrip(),
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
                "url.full": base_url,
            },
        )


def end_call(span: trace.Span, outcome: str) -> None:
    """End the span of a call; `outcome` is as in the metrics."""
    if outcome not in ("answered", "cancelled"):
        _fail(span, outcome)
    span.end()


def _fail(span: trace.Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
