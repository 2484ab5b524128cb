"""How a turn ends: status, usage, errors, and what the server says it used."""

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError

from tests.unit.worker_chat.turns import Chunk, delta, finished, run


def _usage(**fields: Any) -> Chunk:
    return {"choices": [], "usage": fields}


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("length", "max_output_tokens"), ("content_filter", "content_filter")],
)
def test_a_turn_cut_short_is_incomplete_with_the_reason(finish_reason: str, reason: str) -> None:
    _, end = run([delta(content="Once"), finished(finish_reason)])

    assert end.status == "incomplete"
    assert end.incomplete_details == {"reason": reason}
    assert end.error is None
    assert end.output[0]["status"] == "incomplete"


def test_an_item_that_ended_before_the_cut_is_completed() -> None:
    _, end = run([delta(reasoning="hm"), delta(content="Once"), finished("length")])

    assert [item["status"] for item in end.output] == ["completed", "incomplete"]


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "function_call", "eos"])
def test_any_other_finish_reason_completes_the_turn(finish_reason: str) -> None:
    _, end = run([finished(finish_reason, content="Hi")])

    assert end.status == "completed"
    assert (end.error, end.incomplete_details) == (None, None)


def test_a_stream_that_ends_without_a_reason_failed() -> None:
    _, end = run([delta(content="Hal")])

    assert end.status == "failed"
    assert end.error == {"code": "server_error", "message": "the stream ended early"}
    assert end.output[0]["status"] == "incomplete"


def test_an_empty_stream_failed_without_items() -> None:
    events, end = run([])

    assert (events, end.output, end.status) == ([], [], "failed")


def test_a_server_that_aborts_failed_the_turn() -> None:
    _, end = run([delta(content="Hal"), finished("abort")])

    assert end.error == {"code": "server_error", "message": "the provider gave up: abort"}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param({"message": "boom", "type": "server_error"}, "server_error", "boom", id="own"),
        pytest.param({"message": "slow", "code": 429}, "rate_limit_exceeded", "slow", id="429"),
        pytest.param(
            {"message": "slow", "code": "rate_limit_exceeded"},
            "rate_limit_exceeded",
            "slow",
            id="named limit",
        ),
        pytest.param({"message": "long", "code": 400}, "invalid_prompt", "long", id="400"),
        pytest.param(
            {"message": "long", "type": "invalid_request_error", "code": None},
            "invalid_prompt",
            "long",
            id="invalid request",
        ),
        pytest.param("boom", "server_error", "boom", id="only a string"),
        pytest.param(
            {"code": 500}, "server_error", "The provider failed without saying why.", id="no words"
        ),
    ],
)
def test_an_error_in_the_stream_fails_the_turn_with_its_message(
    error: Any, code: str, message: str
) -> None:
    _, end = run([delta(content="Hal"), {"error": error}, delta(content="lo"), finished()])

    assert end.status == "failed"
    assert end.error == {"code": code, "message": message}
    assert end.output[0]["content"][0]["text"] == "Hal"
    assert code in get_args(ResponseError.model_fields["code"].annotation)


def test_usage_is_told_in_the_words_of_the_api() -> None:
    usage = _usage(
        prompt_tokens=10,
        completion_tokens=7,
        total_tokens=17,
        prompt_tokens_details={"cached_tokens": 4, "cache_write_tokens": 2},
        completion_tokens_details={"reasoning_tokens": 3},
    )
    _, end = run([finished(content="Hi"), usage])

    assert end.usage == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 17,
    }


def test_usage_without_details_or_total_is_filled_in() -> None:
    _, end = run([finished(content="Hi"), _usage(prompt_tokens=1, completion_tokens=2)])

    assert end.usage is not None
    assert end.usage["total_tokens"] == 3
    assert end.usage["input_tokens_details"]["cached_tokens"] == 0


def test_the_last_usage_counts_when_every_chunk_has_one() -> None:
    first = delta(content="Hi") | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    last = finished() | {"usage": {"prompt_tokens": 1, "completion_tokens": 5}}
    _, end = run([first, last])

    assert end.usage is not None
    assert end.usage["output_tokens"] == 5


def test_usage_is_unknown_when_the_server_sent_none() -> None:
    _, end = run([finished(content="Hi") | {"usage": None}])

    assert end.usage is None


def test_the_model_and_the_tier_are_those_the_server_names() -> None:
    chunk = finished(content="Hi") | {"model": "m-2026-01", "service_tier": "flex"}
    _, end = run([chunk])

    assert (end.model, end.service_tier) == ("m-2026-01", "flex")
