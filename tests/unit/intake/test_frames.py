"""Events as WebSocket messages: out of SSE, with their lane, and errors in their own shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.errors import ApiError, invalid
from services.intake.sockets.frames import (
    addressed,
    error_event,
    messages,
    steer_failed,
    stream_error,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), max_size=5))
def test_every_event_of_a_block_is_one_message(events: list[dict[str, str]]) -> None:
    block = b"".join(b"event: x\ndata: %b\n\n" % orjson.dumps(event) for event in events)
    assert [orjson.loads(one) for one in messages(block)] == events


@pytest.mark.parametrize(
    "block",
    [b"", b": heartbeat\n\n", b"data: [DONE]\n\n", b"event: x\n\n", b"id: 1\nretry: 2\n\n"],
)
def test_comments_and_the_end_are_no_messages(block: bytes) -> None:
    assert list(messages(block)) == []


def test_an_event_may_have_several_lines_and_no_space() -> None:
    block = b'event: x\ndata:{"a":\ndata: 1}\n\n: note\ndata: {"b":2}\n\n'
    assert list(messages(block)) == [b'{"a":\n1}', b'{"b":2}']


@pytest.mark.parametrize("text", ['{"type":"x"}', '{"type": "x"} ', '{"type":"x"\n}'])
def test_a_message_gets_the_name_of_its_lane(text: str) -> None:
    told = orjson.loads(addressed(text.encode(), "main.1"))
    assert told == {"type": "x", "stream_id": "main.1"}
    assert addressed(text.encode(), None) == text


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "c", "message": "m", "param": "p", "sequence_number": 3},
        {
            "type": "error",
            "error": {"type": "server_error", "code": "c", "message": "m", "param": "p"},
            "sequence_number": 3,
        },
    ],
)
def test_an_error_within_a_stream_gets_the_shape_of_websockets(event: dict[str, Any]) -> None:
    assert stream_error(orjson.dumps(event)) == {
        "type": "error",
        "status": 500,
        "sequence_number": 3,
        "error": {"type": "server_error", "code": "c", "message": "m", "param": "p"},
    }


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created", "response": {"error": None}},
        {"type": "response.output_text.delta", "delta": 'the "error" event'},
        {"type": "response.completed", "response": {"output": [{"type": "error"}]}},
    ],
)
def test_other_events_are_no_errors(event: dict[str, Any]) -> None:
    assert stream_error(orjson.dumps(event)) is None


def test_what_is_no_json_is_no_error() -> None:
    assert stream_error(b'{"type":"error","error"') is None


def test_a_refusal_has_the_status_and_the_headers_of_http() -> None:
    plain = error_event(invalid("Bad.", param="x", code="c"), None)
    assert plain == {
        "type": "error",
        "status": 400,
        "error": {"message": "Bad.", "type": "invalid_request_error", "param": "x", "code": "c"},
    }
    busy = ApiError(429, "Later.", retry_after_seconds=3)
    busy.headers = ((b"x-ratelimit-limit-requests", b"5"),)
    told = error_event(busy, "main")
    headers = {"x-ratelimit-limit-requests": "5", "retry-after": "3"}
    assert (told["stream_id"], told["headers"], told["error"]["headers"]) == (
        "main",
        headers,
        headers,
    )
    assert orjson.loads(orjson.dumps(told)) == told


def test_steering_gives_the_input_back() -> None:
    told = steer_failed({"type": "response.steer", "previous_response_id": "r", "input": ["x"]})
    assert told["steer"] == {"previous_response_id": "r", "input": ["x"]}
