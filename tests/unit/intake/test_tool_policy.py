"""Requests with tools for models without any, and refusals that say when to come again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from contracts.providers import ProviderConfig, Providers
from services.intake.accepted import Answer
from services.intake.errors import ApiError
from services.intake.tool_policy import warnings_about_tools

TOOL = {"type": "function", "name": "f"}


def providers(**settings: Any) -> Providers:
    one = ProviderConfig(name="a", base_url="http://nowhere", **settings)
    return Providers(providers=(one,))


def test_a_warning_says_what_is_left_out() -> None:
    bare = providers(models_without_tools=("small",))
    [(name, text)] = warnings_about_tools(bare, "small", {"tools": [TOOL]})
    assert name == b"warnings"
    assert text.startswith(b"tools_dropped: ")
    assert warnings_about_tools(bare, "large", {"tools": [TOOL]}) == ()


@pytest.mark.parametrize(
    ("policy", "choice", "param"),
    [("refuse", "auto", "tools"), ("drop", "required", "tool_choice")],
)
def test_what_can_not_be_left_out_is_refused_by_name(policy: str, choice: str, param: str) -> None:
    bare = providers(models_without_tools=("*",), on_unsupported_tools=policy)
    with pytest.raises(ApiError) as caught:
        warnings_about_tools(bare, "small", {"tools": [TOOL], "tool_choice": choice})
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.code == "unsupported_parameter"


def test_the_time_to_come_again_is_a_header_and_no_part_of_the_error() -> None:
    body = orjson.dumps({"error": {"code": "x"}, "retry_after_seconds": 7})
    answer = Answer.of(429, body)
    assert orjson.loads(answer.body) == {"error": {"code": "x"}}
    assert answer.headers == ((b"retry-after", b"7"),)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"retry_after_seconds":7}'),
        (502, b'{"error":{}}'),
        (429, b'{"retry_after_seconds":"soon"}'),
    ],
)
def test_any_other_answer_goes_on_as_it_is(status: int, body: bytes) -> None:
    assert Answer.of(status, body) == Answer(status, body)
