"""A small run with nothing wrong, to be spoilt in one place at a time."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson

from tests.chaos.ledger.checking import judged
from tests.chaos.ledger.evidence import (
    Call,
    Command,
    Evidence,
    Execution,
    Fact,
    Line,
    Read,
    Row,
    StoredArtifact,
    ToolResult,
)
from tests.chaos.load.log import Asked, Heard

MARK = "mark00000000-0"
KEY = f"{MARK}/0"
RESULT = f"{KEY}#e1"
ID = "resp_1"
PICTURE = b"picture"
INTAKES = ("http://one", "http://two")
PRICE = Decimal("0.0000001")


def response(**changes: Any) -> dict[str, Any]:
    """A completed response that called the counting tool and drew a picture."""
    return {
        "id": ID,
        "status": "completed",
        "usage": {"input_tokens": 10, "output_tokens": 4},
        "output": [
            {"type": "mcp_call", "output": RESULT},
            {"type": "image_generation_call", "id": "ig_1", "status": "completed"},
            {"type": "message", "content": [{"type": "output_text", "text": "w0 w1"}]},
        ],
        **changes,
    }


def asked(**changes: Any) -> Asked:
    """The request, a stream, as its client saw it."""
    heard = Heard(numbers=[0, 1, 2, 3], deltas={(2, 0): ["w0", " w1"]}, first_delta_at=103.0)
    seen: dict[str, Any] = {
        "response_id": ID,
        "outcome": "answered",
        "answer": response(),
        "answered_at": 104.0,
        "heard": heard,
        "rounds": 1,
        "image": PICTURE,
    }
    seen |= {"body": {"input": MARK, "stream": True}, "at": 100.0} | changes
    return Asked(**{"mark": MARK, "kind": "tools", "intake": INTAKES[0], **seen})


def fact(**changes: Any) -> Fact:
    """Its terminal fact."""
    told: dict[str, Any] = {
        "response_id": ID,
        "attempt": 1,
        "status": "completed",
        "at": 104.0,
        "digest": "d",
        "response": response(),
    }
    return Fact(**{**told, **changes})


def line(unit: str, quantity: int, **changes: Any) -> Line:
    """A line of the ledger."""
    kept: dict[str, Any] = {
        "line_id": f"{ID}:{unit}",
        "response_id": ID,
        "unit": unit,
        "quantity": quantity,
        "unit_price_usd": PRICE,
        "cost_usd": PRICE * quantity,
        "unpriced_reason": None,
        "model": "m",
        "tool": None,
        "estimated": False,
    }
    return Line(**{**kept, **changes})


def lines() -> list[Line]:
    """All lines of the response."""
    return [
        line("input_tokens", 10),
        line("output_tokens", 4),
        line("tool_calls", 1, line_id=f"{ID}:call_1", tool="counting/count", model=""),
        line("tool_calls", 1, line_id=f"{ID}:ig_1", tool="image_generation"),
    ]


def picture(**changes: Any) -> StoredArtifact:
    """The artifact of the picture."""
    digest = sha256(PICTURE).hexdigest()
    kept: dict[str, Any] = {
        "artifact_id": "art_1",
        "response_id": ID,
        "sha256": digest,
        "size_bytes": len(PICTURE),
        "status": 200,
        "content_sha256": digest,
        "content_bytes": len(PICTURE),
    }
    return StoredArtifact(**{**kept, **changes})


def good(**changes: Any) -> Evidence:
    """Evidence in which everything fits."""
    found: dict[str, Any] = {
        "asked": [asked()],
        "commands": [Command(ID, MARK, 100.0)],
        "facts": {ID: [fact()]},
        "rows": {ID: Row(ID, "completed", orjson.dumps(response()).decode(), deleted=False)},
        "reads": {ID: [Read(intake, 200, response()) for intake in INTAKES]},
        "calls": [
            Call(MARK, 0, 100.5, 101.0),
            Call(MARK, 1, 102.5, 103.5, outputs=(RESULT,)),
        ],
        "executions": [Execution(KEY, "e1", 101.5, 101.8)],
        "results": [ToolResult("call_1", ID, RESULT, None, 102.0)],
        "lines_told": lines(),
        "lines_kept": lines(),
        "costs_reported": sum((one.cost_usd or Decimal(0) for one in lines()), Decimal(0)),
        "artifacts": [picture()],
        "webhooks": {},
    }
    return Evidence(**{**found, **changes})


def violations(evidence: Evidence) -> list[str]:
    """What the rules have against it."""
    return judged(evidence).violations
