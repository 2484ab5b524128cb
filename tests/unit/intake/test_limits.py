"""The rule of rate limits: what is admitted, when, and what is told about it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.admission.estimate import estimate_tokens
from services.intake.admission.limits import (
    Limits,
    Standing,
    Use,
    correction,
    duration,
    settled,
    take,
)

HALF_UNIT = 1e-3
limits = st.builds(
    Limits,
    st.none() | st.integers(1, 1_000),
    st.none() | st.integers(1, 100_000),
)
steps = st.lists(
    st.tuples(st.floats(0, 200, allow_nan=False), st.integers(1, 20_000)), min_size=1, max_size=60
)


def judged(limit: Limits, asked: list[tuple[float, int]]) -> list[tuple[float, Standing]]:
    """Return the moment and the outcome of each request; the first of a pair is the pause."""
    use, now, found = Use(), 0.0, []
    for pause, tokens in asked:
        now += pause
        standing = take(use, limit, tokens=tokens, now=now)
        use = standing.use
        found.append((now, standing))
    return found


@given(limits, steps)
def test_within_any_time_no_more_is_admitted_than_a_full_bucket_and_what_drained_from_it(
    limit: Limits, asked: list[tuple[float, int]]
) -> None:
    admitted = [(now, one.tokens) for now, one in judged(limit, asked) if one.admitted]
    for first, (begin, _) in enumerate(admitted):
        tokens = 0
        for requests, (now, cost) in enumerate(admitted[first:], start=1):
            tokens += cost
            minutes = 1 + (now - begin) / 60
            if limit.requests_per_minute is not None:
                assert requests <= limit.requests_per_minute * minutes + HALF_UNIT
            if limit.tokens_per_minute is not None:
                assert tokens <= limit.tokens_per_minute * minutes + HALF_UNIT


@given(limits, steps)
def test_a_refused_request_is_admitted_after_the_time_that_it_was_told(
    limit: Limits, asked: list[tuple[float, int]]
) -> None:
    for now, standing in judged(limit, asked):
        if not standing.admitted:
            error = standing.refusal()
            assert (error.status, error.code) == (429, "rate_limit_exceeded")
            assert error.retry_after_seconds is not None
            later = now + error.retry_after_seconds
            again = take(standing.use, limit, tokens=standing.tokens, now=later)
            assert again.admitted


@given(limits, steps)
def test_a_refusal_charges_nothing_and_a_key_at_rest_may_ask_for_anything(
    limit: Limits, asked: list[tuple[float, int]]
) -> None:
    before = Use()
    for now, standing in judged(limit, asked):
        if not standing.admitted:
            assert standing.use.requests <= before.requests + HALF_UNIT
            assert standing.use.tokens <= before.tokens + HALF_UNIT
        before = standing.use
        rested = take(standing.use, limit, tokens=10**9, now=now + 61)
        assert rested.admitted


@given(limits, steps)
def test_what_is_left_and_when_it_is_whole_again_is_told_of_each_limit_there_is(
    limit: Limits, asked: list[tuple[float, int]]
) -> None:
    for _, standing in judged(limit, asked):
        headers = {name.decode(): value.decode() for name, value in standing.headers()}
        for name, most in (
            ("requests", limit.requests_per_minute),
            ("tokens", limit.tokens_per_minute),
        ):
            if most is None:
                assert not any(name in header for header in headers)
                continue
            assert headers[f"x-ratelimit-limit-{name}"] == str(most)
            assert 0 <= int(headers[f"x-ratelimit-remaining-{name}"]) <= most
            assert re.fullmatch(
                r"\d+ms|(\d+h)?(\d+m)?\d+(\.\d+)?s", headers[f"x-ratelimit-reset-{name}"]
            )


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 10**5))
def test_what_is_given_back_was_reserved_and_is_still_in_the_bucket(
    reserved: int, used: int, limit: int, seconds: float
) -> None:
    added = correction(reserved=reserved, used=used, limit=limit, seconds=seconds)
    if used >= reserved:
        assert added == used - reserved
    else:
        assert -(reserved - used) <= added <= 0
        # Of what was reserved at least this is still there, whatever else the bucket drained of.
        assert -added <= max(0, reserved - limit * seconds / 60) + HALF_UNIT


@given(st.floats(0, 10**7), st.floats(-(10**7), 10**7), st.integers(1, 10**6), st.floats(0, 100))
def test_a_bucket_is_never_below_empty_and_a_correction_leads_into_bounded_debt(
    tokens: float, added: float, limit: int, debt: float
) -> None:
    level = settled(tokens, added, limit=limit, debt_minutes=debt)
    assert level >= 0
    assert level <= max(tokens, limit * (1 + debt))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0115, "12ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (72.5, "1m12.5s"),
        (3600, "1h0m0s"),
    ],
)
def test_durations_read_as_the_vendor_s(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_refusal_names_the_limit_that_lasts_longest() -> None:
    limit = Limits(1, 100)
    use = take(Use(), limit, tokens=100, now=0).use
    error = take(use, limit, tokens=50, now=0).refusal()
    assert error.kind == "requests"
    assert error.retry_after_seconds == 60
    assert "Limit 1, Used 1, Requested 1. Please try again in 1m0s." in error.message
    refused = take(Use(0.0, 400.0, 0.0), limit, tokens=50, now=0).refusal()
    assert (refused.kind, refused.retry_after_seconds) == ("tokens", 210)


def test_tokens_are_estimated_from_what_a_model_reads() -> None:
    assert estimate_tokens({"input": "x" * 400}, most_output=10) == 110
    assert estimate_tokens({"input": "x" * 400, "max_output_tokens": 3}, most_output=10) == 103
    assert estimate_tokens({"input": "", "metadata": {"a": "x" * 400}}, most_output=0) == 1
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    content = [{"role": "user", "content": [image]}]
    assert 1_000 < estimate_tokens({"input": content}, most_output=10) < 1_050
