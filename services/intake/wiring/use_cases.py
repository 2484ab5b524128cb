"""Requests for responses, with and without an idempotency key, and operations beside them."""

from __future__ import annotations

from dataclasses import dataclass

from services.intake.idempotency.service import Idempotency
from services.intake.idempotency.store import IdempotencyStore
from services.intake.idempotency.sweeper import IdempotencySweeper
from services.intake.kept import KeptResponses
from services.intake.log import Log
from services.intake.operations.service import Operations
from services.intake.service import Bounds, Responses
from services.intake.settings import IntakeSettings
from services.intake.wiring.admission import Admission
from services.intake.wiring.history import History
from services.intake.wiring.shared import Shared
from services.intake.wiring.streams import Streams

_IDEMPOTENCY_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class UseCases:
    """`sweeper` is a part that starts and stops."""

    responses: Responses
    kept: KeptResponses
    operations: Operations
    idempotency: Idempotency
    sweeper: IdempotencySweeper


def wire_use_cases(
    shared: Shared, admission: Admission, streams: Streams, history: History
) -> UseCases:
    """Wire what accepts requests and answers them."""
    settings = shared.settings
    log = Log(shared.producer, shared.clock, settings.accept_timeout_seconds)
    responses = Responses(
        files=history.files,
        log=log,
        hub=streams.hubs.own,
        reader=history.reader,
        turns=history.turns,
        blobs=shared.blobs,
        providers=shared.providers,
        clock=shared.clock,
        bounds=_bounds(settings),
        limits=admission.limiter,
    )
    keys = IdempotencyStore(
        shared.engine,
        keep_seconds=settings.idempotency_seconds,
        patience_seconds=_IDEMPOTENCY_PATIENCE_SECONDS,
        answer_seconds=settings.accept_timeout_seconds,
    )
    return UseCases(
        responses=responses,
        kept=KeptResponses(history.reader, history.store, log),
        operations=Operations(responses, history.conversation_store, history.turns),
        idempotency=Idempotency(
            keys,
            responses,
            streams.resumer,
            wait_seconds=settings.accept_timeout_seconds + settings.projection_wait_seconds,
        ),
        sweeper=IdempotencySweeper(keys),
    )


def _bounds(settings: IntakeSettings) -> Bounds:
    return Bounds(
        response_seconds=settings.response_timeout_seconds,
        max_open=settings.max_open_requests,
        max_chain=settings.max_chain,
        max_history_bytes=settings.max_history_bytes,
        stream_buffer_bytes=settings.max_stream_buffer_bytes,
        estimated_output_tokens=settings.limit_output_tokens,
    )
