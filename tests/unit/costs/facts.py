"""Facts and Response objects as the other services send them, and a price book to charge them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.event import Contract, Envelope
from contracts.principal import Principal
from contracts.responses import ResponseFinishedV1
from contracts.tools import ToolResultV1
from services.costs.clients.price_file import HOSTED_TOOL_PRICES, FilePrices
from services.costs.clients.published import PublishedPrices
from services.costs.domain.prices import LayeredBook

STARTED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FINISHED = STARTED + timedelta(seconds=3)
OWNER = Principal(project="proj_a", key_id="key_a", user="ada", chat="chat_1")
BOOK = LayeredBook([PublishedPrices(), FilePrices.load(HOSTED_TOOL_PRICES)])


def usage(
    input_tokens: int = 1000,
    output_tokens: int = 500,
    *,
    cached: int = 0,
    written: int = 0,
    reasoning: int = 0,
) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input_tokens + output_tokens,
    }


def response(**fields: Any) -> dict[str, Any]:
    return {"object": "response", "output": [], "usage": usage(), **fields}


def finished(**fields: Any) -> ResponseFinishedV1:
    values: dict[str, Any] = {
        "response_id": "resp_1",
        "attempt": 1,
        "status": "completed",
        "principal": OWNER,
        "model": "gpt-4o-mini",
        "provider": "openai",
        "accepted_at": STARTED,
        "started_at": STARTED,
        "finished_at": FINISHED,
        "events_partition": 0,
        "response": response(),
    }
    return ResponseFinishedV1.model_validate({**values, **fields})


def tool_result(**fields: Any) -> ToolResultV1:
    values: dict[str, Any] = {
        "call_id": "call_1",
        "response_id": "resp_1",
        "principal": OWNER,
        "executor": "mcp_broker",
        "server_label": "everything",
        "tool": "echo",
        "output": "Echo: hello",
        "latency_ms": 3.5,
    }
    return ToolResultV1.model_validate({**values, **fields})


def envelope(data: Contract, *, response_id: str, time: datetime = FINISHED) -> Envelope:
    return Envelope.of(
        data, event_id=f"{response_id}:{data.TYPE}", source="/tests", subject=response_id, time=time
    )
