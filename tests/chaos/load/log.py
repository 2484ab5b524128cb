"""What the clients of a run asked, what they were told, and what they hold against the answers."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Outcome = Literal["open", "answered", "error", "refused", "ambiguous", "lost", "hung"]
MARK = re.compile(r"mark[0-9a-f]{8}-\d+")
TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass
class Heard:
    """The events of one response that a client heard, over all its connections."""

    numbers: list[int] = field(default_factory=list)
    deltas: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    first_delta_at: float | None = None
    connections: int = 0

    def text(self, place: tuple[int, int]) -> str:
        """Return the deltas of one content part, joined."""
        return "".join(self.deltas.get(place, ()))


@dataclass
class Asked:
    """One request of one client. Times are Unix seconds.

    `outcome` tells how it looked from the client: `answered` (a Response object in a terminal
    state), `error` (an HTTP error that is no refusal to accept), `refused` (429, 503), `ambiguous`
    (the connection broke before an id was known: perhaps accepted), `lost` (the client gave up
    while the id is known, as at the end of a run), `hung` (neither answer, error nor broken
    connection in time). `response_id` is known when the server told it. `tolerated` are codes of
    refusals that this request may meet.
    """

    mark: str
    kind: str
    body: Json
    intake: str
    at: float = field(default_factory=time.time)
    response_id: str | None = None
    outcome: Outcome = "open"
    told: str = ""
    answer: Json | None = None
    answered_at: float | None = None
    heard: Heard | None = None
    rounds: int = 0
    tolerated: tuple[str, ...] = ()
    image: bytes | None = None
    key: str | None = None
    other_ids: set[str] = field(default_factory=set)
    cancelled: bool = False
    deleted: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def stored(self) -> bool:
        """Whether the response is kept."""
        return self.body.get("store") is not False

    def know(self, response_id: str) -> None:
        """Note the id that the server told; another one under the same key is kept apart."""
        if self.response_id is None:
            self.response_id = response_id
        elif self.response_id != response_id:
            self.other_ids.add(response_id)

    def finish(self, answer: Json) -> None:
        """Note the Response object that ended it."""
        self.know(answer["id"])
        self.answer = answer
        self.answered_at = self.answered_at or time.time()
        self.outcome = "answered"

    def end(self, outcome: Outcome, told: str) -> None:
        """Note another end, with what was seen."""
        self.outcome, self.told = outcome, told[:300]

    def complain(self, sentence: str) -> None:
        """Note something that must not be, whatever died."""
        self.problems.append(f"{self.response_id or self.mark} ({self.kind}): {sentence}")


class Log:
    """Every request of a run, in the order of asking."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self.asked: list[Asked] = []
        self.skipped = 0
        self.broken: list[BaseException] = []

    def note(self, kind: str, body: Json, intake: str) -> Asked:
        """Add a request under a new mark; `body` gets the mark into metadata and text."""
        mark = f"mark{self.run}-{len(self.asked)}"
        metadata = {"mark": mark, "chat_id": mark}
        text = str(body["input"]).replace("{mark}", mark)
        marked = {**body, "input": f"{mark}\n{text}", "metadata": metadata}
        asked = Asked(mark=mark, kind=kind, body=marked, intake=intake)
        self.asked.append(asked)
        return asked


def text_of(response: Json) -> str:
    """Return all texts of a Response object's messages, joined."""
    return "".join(
        part.get("text") or ""
        for item in response.get("output") or ()
        if item.get("type") == "message"
        for part in item.get("content") or ()
    )
