"""The end of one Chat Completions turn, in the words of the Responses API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Event = dict[str, Any]
Item = dict[str, Any]
TurnStatus = Literal["completed", "incomplete", "failed"]


@dataclass(frozen=True)
class TurnEnd:
    """What a turn came to: the fields of a Response that only its end decides.

    `output` holds the items as their `response.output_item.done` had them, in order. `usage` is
    None when the server sent none; `error` is set exactly when the status is `failed`, and
    `incomplete_details` exactly when it is `incomplete`. `model` and `service_tier` are what the
    server says it used.
    """

    status: TurnStatus
    output: list[Item]
    usage: dict[str, Any] | None = None
    incomplete_details: dict[str, str] | None = None
    error: dict[str, str] | None = None
    model: str | None = None
    service_tier: str | None = None
