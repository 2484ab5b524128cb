"""Arguments in, results out: the rules of a tool call."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mcp_broker.domain import Block, Limits, Outcome, parse_arguments, render
from services.mcp_broker.errors import ToolCallFailedError

WIDE = Limits(output_bytes=256 * 1024, content_bytes=1024 * 1024)
IMAGE: Block = {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}


def text(value: str) -> Block:
    return {"type": "text", "text": value}


def rendered(*blocks: Block, structured: object = None, limits: Limits = WIDE) -> Outcome:
    return render(blocks, structured=structured, is_error=False, limits=limits)


def test_arguments_are_the_object_that_the_model_wrote() -> None:
    assert parse_arguments('{"a": [1, "ü"], "b": {"c": null}}') == {"a": [1, "ü"], "b": {"c": None}}


@pytest.mark.parametrize("nothing", ["", "  \n"])
def test_no_text_stands_for_no_arguments(nothing: str) -> None:
    assert parse_arguments(nothing) == {}


@pytest.mark.parametrize(
    "wrong", ["{", "[1]", '"x"', "null", "3", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000]
)
def test_anything_but_a_json_object_is_refused(wrong: str) -> None:
    with pytest.raises(ToolCallFailedError) as caught:
        parse_arguments(wrong)
    assert caught.value.error == "invalid_arguments"


@given(st.text())
def test_no_text_of_a_model_breaks_the_parser(written: str) -> None:
    with suppress(ToolCallFailedError):
        assert isinstance(parse_arguments(written), dict)


def test_text_blocks_are_joined_with_line_breaks() -> None:
    outcome = rendered(text("one"), text("two"))
    assert outcome == Outcome(output="one\ntwo", content=[text("one"), text("two")])


def test_other_blocks_make_the_output_the_json_of_all_blocks() -> None:
    outcome = rendered(text("see:"), IMAGE)
    assert json.loads(outcome.output) == [text("see:"), IMAGE]
    assert outcome.content == [text("see:"), IMAGE]


def test_structured_content_alone_becomes_a_text_block() -> None:
    outcome = rendered(structured={"sum": 3, "unit": "€"})
    assert outcome.output == '{"sum":3,"unit":"€"}'
    assert outcome.content == [text('{"sum":3,"unit":"€"}')]


def test_structured_content_beside_text_leaves_the_text_as_it_is() -> None:
    assert rendered(text("three"), structured={"sum": 3}).output == "three"


def test_no_content_at_all_is_an_empty_output() -> None:
    assert rendered() == Outcome(output="", content=[])


def test_an_error_of_the_tool_keeps_its_text() -> None:
    outcome = render([text("no such city")], structured=None, is_error=True, limits=WIDE)
    assert outcome.error == "tool_error"
    assert outcome.output == outcome.message == "no such city"


def test_a_long_output_is_cut_with_a_notice() -> None:
    limits = Limits(output_bytes=10, content_bytes=1000)
    outcome = rendered(text("ääääääääää"), limits=limits)
    assert outcome.output == "äääää\n[cut: the first 10 of 20 bytes]"


def test_blocks_beyond_the_limit_are_dropped_with_a_notice() -> None:
    limits = Limits(output_bytes=1000, content_bytes=100)
    outcome = rendered(text("short"), text("x" * 200), text("y"), limits=limits)
    notice = text("[2 of 3 content blocks left out: above 100 bytes]")
    assert outcome.content == [text("short"), notice]


@given(st.lists(st.text()), st.integers(16, 200))
def test_a_result_is_never_much_larger_than_its_limits(texts: list[str], limit: int) -> None:
    limits = Limits(output_bytes=limit, content_bytes=limit)
    outcome = rendered(*(text(value) for value in texts), limits=limits)
    assert len(outcome.output.encode()) <= limit + 100
    assert (
        sum(len(json.dumps(b, ensure_ascii=False).encode()) for b in outcome.content)
        <= 3 * limit + 100
    )
