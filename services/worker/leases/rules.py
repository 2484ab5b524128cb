"""What a lease is about: where a command stands, and what its worker may assume."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

AGAIN_SECONDS = 5.0
"""So long a command that was sent again has time to be claimed before a sweeper sends it too."""
MOST_HANDOVERS = 100
"""So many attempts may end by a worker's orderly stop before further ones count as failures."""


@dataclass(frozen=True, slots=True)
class CommandPlace:
    """Where the command of a response stands on `responses.commands`."""

    response_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A response this worker shall run, or end at once when it was `cancelled` meanwhile.

    One whose command is `lost` can only be ended as failed. `traceparent` is the command's.
    `attempt` fences and grows with each claim; `handovers` of those before it did not fail, their
    worker was told to stop. `since` is the time of the first claim, None when that is not known.
    """

    attempt: int
    cancelled: bool
    lost: bool = False
    traceparent: str | None = None
    handovers: int = 0
    since: datetime | None = None

    @property
    def tries(self) -> int:
        """Which attempt this is when those that were handed over do not count."""
        return self.attempt - self.handovers


@dataclass(frozen=True, slots=True)
class Expired:
    """A lease that nobody holds any more, and how often its command was sent again in vain."""

    place: CommandPlace
    resent: int
