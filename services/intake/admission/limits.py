"""The rule of rate limits: buckets that fill by use and drain by time. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.intake.errors import ApiError

_MINUTE_SECONDS = 60.0
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use per minute; None for no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Use:
    """How full the buckets of a key are at a time in seconds, of whichever clock."""

    requests: float = 0.0
    tokens: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands right after one of its requests was judged. `tokens` were asked for."""

    limits: Limits
    admitted: bool
    use: Use
    tokens: int

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the `x-ratelimit-*` headers of each limit there is, as OpenAI writes them."""
        found: list[tuple[bytes, bytes]] = []
        for name, limit, used in (
            (b"requests", self.limits.requests_per_minute, self.use.requests),
            (b"tokens", self.limits.tokens_per_minute, self.use.tokens),
        ):
            if limit is not None:
                left = max(0, math.floor(limit - used + _ROUNDING))
                full_again = used * _MINUTE_SECONDS / limit
                found += [
                    (b"x-ratelimit-limit-" + name, b"%d" % limit),
                    (b"x-ratelimit-remaining-" + name, b"%d" % left),
                    (b"x-ratelimit-reset-" + name, duration(full_again).encode()),
                ]
        return tuple(found)

    def refusal(self) -> ApiError:
        """Return the 429 of a request that was not admitted, about the limit that lasts longest."""
        waits = [
            (_wait(limit, used, cost), kind, words, limit, used, cost)
            for kind, words, limit, used, cost in (
                ("requests", "RPM", self.limits.requests_per_minute, self.use.requests, 1),
                ("tokens", "TPM", self.limits.tokens_per_minute, self.use.tokens, self.tokens),
            )
            if limit is not None
        ]
        wait, kind, words, limit, used, cost = max(waits)
        error = ApiError(
            429,
            f"Rate limit reached for this API key on {kind} per min ({words}): Limit {limit}, "
            f"Used {math.ceil(used - _ROUNDING)}, Requested {cost}. "
            f"Please try again in {duration(wait)}.",
            kind=kind,
            code="rate_limit_exceeded",
            retry_after_seconds=max(1, math.ceil(wait)),
        )
        error.headers = self.headers()
        return error


def take(use: Use, limits: Limits, *, tokens: int, now: float) -> Standing:
    """Judge one request that will use about `tokens`, and charge it if it is admitted.

    It is admitted when both buckets have room for it: a bucket holds one minute's worth and drains
    evenly, so within any time of m minutes at most `limit * (m + 1)` are admitted. One request for
    more tokens than the whole limit counts as the limit, so that it can run at all.
    """
    use = drained(use, limits, now=now)
    tokens = cost_of(tokens, limits)
    admitted = _fits(limits.requests_per_minute, use.requests, 1) and _fits(
        limits.tokens_per_minute, use.tokens, tokens
    )
    if admitted:
        # A bucket that has no limit stays empty.
        use = Use(
            0.0 if limits.requests_per_minute is None else use.requests + 1,
            0.0 if limits.tokens_per_minute is None else use.tokens + tokens,
            use.at,
        )
    return Standing(limits, admitted=admitted, use=use, tokens=tokens)


def cost_of(tokens: int, limits: Limits) -> int:
    """Return what a request for so many tokens reserves."""
    return min(tokens, limits.tokens_per_minute or tokens)


def drained(use: Use, limits: Limits, *, now: float) -> Use:
    """Return the buckets as time left them. A clock that was put back drains them from there on."""
    seconds = max(0.0, now - use.at)
    return Use(
        _drained(use.requests, limits.requests_per_minute, seconds),
        _drained(use.tokens, limits.tokens_per_minute, seconds),
        now,
    )


def correction(*, reserved: int, used: int, limit: int, seconds: float) -> float:
    """Return what to add to the bucket of tokens when a request turns out to have `used` so many.

    What was reserved in vain is given back only as far as it can't have drained since, `seconds`
    ago: else a long run would give back what others use now.
    """
    if used >= reserved:
        return float(used - reserved)
    left = max(0.0, reserved - limit * max(0.0, seconds) / _MINUTE_SECONDS)
    return -min(float(reserved - used), left)


def settled(tokens: float, added: float, *, limit: int, debt_minutes: float) -> float:
    """Return the bucket of tokens after a correction: never below empty, nor deeper in debt."""
    return min(max(0.0, tokens + added), max(tokens, limit * (1 + debt_minutes)))


def duration(seconds: float) -> str:
    """Return a duration as OpenAI's headers have it: `12ms`, `1s`, `7.66s`, `6m0s`, `1h0m0s`."""
    milliseconds = math.ceil(seconds * 1000 - _ROUNDING)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole, rest = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _fits(limit: int | None, used: float, cost: int) -> bool:
    return limit is None or used + cost <= limit + _ROUNDING


def _drained(used: float, limit: int | None, seconds: float) -> float:
    return 0.0 if limit is None else max(0.0, used - limit * seconds / _MINUTE_SECONDS)


def _wait(limit: int | None, used: float, cost: int) -> float:
    assert limit is not None
    return max(0.0, (used + cost - limit) * _MINUTE_SECONDS / limit)
