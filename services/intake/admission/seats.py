"""Room for requests: how many are open at once, how large their bodies, what a key may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from services.intake.errors import ApiError, overloaded

Verdict = Literal["full", "share"] | None


class Pool:
    """An amount that keys share, and how much of it each has.

    While little is taken anybody may have it. From `fair_from` (0 to 1) of it on a key has at most
    its share, and there is a share more than there are keys: whoever comes next finds room, however
    much the others have. Nothing waits here; an answer costs the same however many keys there are.
    """

    def __init__(self, most: int, *, fair_from: float) -> None:
        self.most = most
        self.taken = 0
        self.easy = int(most * fair_from)
        """Up to here anybody may have some."""
        self._held: dict[str, int] = {}

    def held(self, key_id: str) -> int:
        """Return how much a key has."""
        return self._held.get(key_id, 0)

    def take(self, key_id: str, amount: int = 1) -> Verdict:
        """Give a key some, or say why not: nothing is left, or its share is used up."""
        held = self._held.get(key_id, 0)
        if self.taken + amount > self.easy:
            if self.taken + amount > self.most:
                return "full"
            others = len(self._held) + (held == 0)
            if held and held + amount > self.most // (others + 1):
                return "share"
        self._held[key_id] = held + amount
        self.taken += amount
        return None

    def force(self, key_id: str, amount: int) -> None:
        """Give a key some, whoever has how much."""
        self._held[key_id] = self._held.get(key_id, 0) + amount
        self.taken += amount

    def give(self, key_id: str, amount: int = 1) -> None:
        """Take back what a key was given."""
        if not amount:
            return
        self.taken -= amount
        held = self._held[key_id] - amount
        if held:
            self._held[key_id] = held
        else:
            del self._held[key_id]


@dataclass(frozen=True, slots=True)
class SeatBounds:
    """`most` are open at once, with `body_bytes` of bodies whose command is not on the log yet.

    From `fair_from` (0 to 1) of either on a key has its share only.
    """

    most: int
    body_bytes: int = 128 * 1024 * 1024
    fair_from: float = 0.8


class Seats:
    """Gives each open request a seat before a byte of its body is read. `kind` names them."""

    def __init__(self, bounds: SeatBounds, *, kind: str = "requests") -> None:
        self.places = Pool(bounds.most, fair_from=bounds.fair_from)
        self.bodies = Pool(bounds.body_bytes, fair_from=bounds.fair_from)
        self._kind = kind
        self._refused: Counter[str] = Counter()
        metrics.get_meter("antiphon").create_observable_counter(
            f"antiphon.intake.{kind}.overload",
            [self._observe],
            description="Refused for want of room: all is taken, or the key's share is",
        )

    @property
    def open(self) -> int:
        """How many seats are taken."""
        return self.places.taken

    @property
    def body_bytes(self) -> int:
        """How many bytes of bodies are held."""
        return self.bodies.taken

    def take(self, key_id: str) -> Seat:
        """Take a seat, which the caller must `leave`; raises `ApiError` (429)."""
        verdict = self.places.take(key_id)
        if verdict is not None:
            raise self.refusal(verdict, key_id)
        return Seat(self, key_id)

    def body(self, key_id: str) -> Body:
        """Return what holds bytes of bodies for a connection; the caller must `drop` them."""
        return Body(self, key_id)

    def refusal(self, verdict: Verdict, key_id: str) -> ApiError:
        """Count a refusal and return it."""
        self._refused[str(verdict)] += 1
        if verdict == "full":
            return overloaded()
        return ApiError(
            429,
            f"This API key has {self.places.held(key_id)} {self._kind} open, which is its share of "
            "this server.",
            kind="rate_limit_error",
            code="too_many_open_requests",
            retry_after_seconds=1,
        )

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, {"reason": reason}) for reason, count in self._refused.items()]


class Body:
    """The bytes of bodies that one request or connection holds."""

    __slots__ = ("_bytes", "_key_id", "_seats")

    def __init__(self, seats: Seats, key_id: str) -> None:
        self._seats = seats
        self._key_id = key_id
        self._bytes = 0

    def expect(self, size_bytes: int) -> None:
        """Refuse a body that has no room now, before it is read; raises `ApiError` (429)."""
        bodies = self._seats.bodies
        if bodies.taken + size_bytes > bodies.easy:
            self.grow(size_bytes)
            self.shrink(size_bytes)

    def grow(self, size_bytes: int) -> None:
        """Hold so many more bytes; raises `ApiError` (429).

        What is alone is held however large it is: other bounds are about that.
        """
        bodies = self._seats.bodies
        if bodies.taken == self._bytes:
            bodies.force(self._key_id, size_bytes)
        elif (verdict := bodies.take(self._key_id, size_bytes)) is not None:
            raise self._seats.refusal(verdict, self._key_id)
        self._bytes += size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Let go of so many bytes."""
        self._seats.bodies.give(self._key_id, size_bytes)
        self._bytes -= size_bytes

    def drop(self) -> None:
        """Let go of all bytes: they are on the log, or refused. Idempotent."""
        if self._bytes:
            self.shrink(self._bytes)


class Seat(Body):
    """The place of one request, with the bytes of its body."""

    __slots__ = ()

    def leave(self) -> None:
        """Let go of all; call once."""
        self.drop()
        self._seats.places.give(self._key_id)
