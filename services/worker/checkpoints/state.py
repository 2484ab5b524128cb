"""What a checkpoint says: the end of a model turn, or a provider's own background response."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.worker.domain import Item

logger = logging.getLogger(__name__)
_EVENTS_OF_A_CALL = 2


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that was asked for: its item's place in the output, and the model's own id of it."""

    output_index: int
    call_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A response between two model turns, or before its first.

    `carried` is the next turn's input beyond the request's own, without the results of `pending`
    calls. `changed` are parameters that the next turn is asked with in place of the request's.
    `usage` sums finished turns. The next event has `next_number`.
    """

    provider: str
    created_at: int
    next_number: int
    turns: int
    output: list[Item]
    carried: list[Item] = field(default_factory=list)
    pending: list[PendingCall] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    calls_made: int = 0
    changed: dict[str, Any] = field(default_factory=dict)
    service_tier: str | None = None

    @property
    def told_through(self) -> int:
        """The number of the last event that every attempt tells alike: those of the calls' ends."""
        return self.next_number + _EVENTS_OF_A_CALL * len(self.pending) - 1

    def carried_to(self, provider: str) -> list[Item]:
        """Return the carried items for a provider.

        What another one thought is bound to it, and so are the ids it gave: they stay behind.
        """
        if provider == self.provider:
            return self.carried
        plain = [item for item in self.carried if item.get("type") != "reasoning"]
        return [{name: value for name, value in item.items() if name != "id"} for item in plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """A response that its provider works on in the background.

    `exact` says that events were told with the provider's own numbers. `asked_at` is Unix time.
    """

    provider: str
    upstream_id: str
    exact: bool
    asked_at: float


State = Boundary | Detached
_KINDS: dict[str, type[Boundary] | type[Detached]] = {"boundary": Boundary, "detached": Detached}


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint to be written."""

    response_id: str
    attempt: int
    state: bytes


def encode(state: State) -> bytes:
    """Return the state as JSON; nothing of it is shared with later changes."""
    kind = "boundary" if isinstance(state, Boundary) else "detached"
    return orjson.dumps({"kind": kind, **dataclasses.asdict(state)})


def decode(raw: bytes) -> State | None:
    """Return the state, None for one that a worker of another version wrote."""
    fields = orjson.loads(raw)
    kind = _KINDS.get(fields.pop("kind", ""))
    if kind is None:
        return None
    try:
        if kind is Boundary:
            fields["pending"] = [PendingCall(**call) for call in fields["pending"]]
        return kind(**fields)
    except (KeyError, TypeError):
        logger.warning("a checkpoint of another version is passed over")
        return None
