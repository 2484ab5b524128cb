"""What goes first when a conversation does not fit the model."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker.chat.truncation import is_too_long, shorter
from services.worker.errors import UpstreamError

SYSTEM = {"role": "system", "content": "Be brief."}


def round_of(number: int) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": str(number)},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "Attached by tool call a:"}]},
        {"role": "assistant", "content": f"answer {number}"},
    ]


def test_the_older_half_of_the_rounds_goes_until_one_is_left() -> None:
    rounds = [round_of(number) for number in range(5)]
    messages: list[dict[str, Any]] | None = [SYSTEM, *(m for one in rounds for m in one)]

    left = []
    while messages is not None:
        assert messages[0] == SYSTEM
        assert (len(messages) - 1) % 5 == 0
        left.append([m["content"] for m in messages[1::5]])
        messages = shorter(messages)
    assert left == [["0", "1", "2", "3", "4"], ["3", "4"], ["4"]]


def test_what_precedes_the_first_question_goes_with_the_first_round() -> None:
    greeting = {"role": "assistant", "content": "Hello"}
    question = {"role": "user", "content": "Hi"}

    assert shorter([greeting, question]) == [question]
    assert shorter([question]) is None
    assert shorter([SYSTEM]) is None


@pytest.mark.parametrize(
    ("status", "message", "code", "too_long"),
    [
        (400, "no words", "context_length_exceeded", True),
        (400, "This model's maximum context length is 4096 tokens.", "400", True),
        (400, "the request exceeds the available context size", None, True),
        (400, "Invalid value.", None, False),
        (500, "context length", None, False),
    ],
)
def test_providers_say_in_several_ways_that_it_is_too_long(
    status: int, message: str, code: str | None, too_long: bool
) -> None:
    assert is_too_long(UpstreamError(message, status=status, code=code)) is too_long
