"""What tests can tell the server besides the requests themselves: queued answers and gates."""

from collections import deque
from dataclasses import dataclass, field

from tests.upstream.answers import Json
from tests.upstream.dialogue import Dialogue
from tests.upstream.language import Directives, parse, parse_fault
from tests.upstream.ledger import Ledger
from tests.upstream.refusals import invalid

_MAX_HOLD_S = 120.0
_MAX_QUEUED = 10_000
_MODEL_PREFIX = "scripted-"
_FAULT_PREFIX = "fault-"


@dataclass(frozen=True)
class RawAnswer:
    """An HTTP answer sent as it is."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass
class Queued:
    """An answer for the next `times` requests whose last user text or model contains `match`."""

    directives: Directives
    raw: RawAnswer | None = None
    match: str = ""
    times: int = 1


class Queue:
    """Answers queued through the control API, taken first in, first out."""

    def __init__(self) -> None:
        self._waiting: deque[Queued] = deque()

    def put(self, entry: str | Json) -> None:
        """Queue a text of the mini-language or `{do, raw, match, times}`; 400 when unreadable."""
        given: Json = {"do": entry} if isinstance(entry, str) else entry
        if len(self._waiting) >= _MAX_QUEUED or not given.keys() <= {"do", "raw", "match", "times"}:
            raise invalid(f"Cannot queue {given}.", code="bad_script")
        raw = RawAnswer(**given["raw"]) if given.get("raw") else None
        times, match = int(given.get("times", 1)), str(given.get("match", ""))
        self._waiting.append(Queued(parse(given.get("do", "")), raw, match, times))

    def take(self, dialogue: Dialogue) -> Queued | None:
        """The first queued answer that matches; it is used up after its number of times."""
        for queued in self._waiting:
            if queued.match in dialogue.last_user.text or queued.match in dialogue.model:
                queued.times -= 1
                if queued.times <= 0:
                    self._waiting.remove(queued)
                return queued
        return None

    def clear(self) -> None:
        """Drop what is queued."""
        self._waiting.clear()


class Gates:
    """Holds answers until a test releases them; a released key stays open until reset."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._released: set[str] = set()
        self._all = False

    def release(self, key: str | None) -> None:
        """Open the gate of that key; with None every gate."""
        if key is None:
            self._all = True
        else:
            self._released.add(key)
        self._ledger.touch()

    def is_open(self, key: str) -> bool:
        """Whether the gate was released."""
        return self._all or key in self._released

    async def passed(self, key: str) -> None:
        """Wait for the gate. Raises TimeoutError after two minutes."""
        self._ledger.hold(1)
        try:
            await self._ledger.wait_until(lambda: self.is_open(key), timeout_s=_MAX_HOLD_S)
        finally:
            self._ledger.hold(-1)

    def reset(self) -> None:
        """Close every gate."""
        self._released.clear()
        self._all = False


def directives_for(dialogue: Dialogue) -> Directives:
    """What the request itself asks for: its metadata, else its text, else its model's name."""
    if "script" in dialogue.metadata:
        return parse(str(dialogue.metadata["script"]))
    asked = parse(dialogue.last_user.text)
    if asked.empty and dialogue.model.startswith(_MODEL_PREFIX):
        name = dialogue.model.removeprefix(_MODEL_PREFIX)
        if name.startswith(_FAULT_PREFIX):
            return Directives(faults=(parse_fault(name.removeprefix(_FAULT_PREFIX)),))
        return Directives(script=name)
    return asked
