"""Files in the input, as a provider of Chat Completions gets them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.messages import to_messages


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def told(part: dict[str, Any]) -> Any:
    """Return what a user's message with this part and a question says in chat."""
    question = {"type": "input_text", "text": "What is this?"}
    item = {"role": "user", "content": [{"type": "input_file", **part}, question]}
    [message] = to_messages([item], None)
    return message["content"][0]


@pytest.mark.parametrize(
    "data",
    [
        "data:text/markdown;base64," + encoded(b"# Gr\xc3\xbc\xc3\x9fe"),
        "data:text/plain;charset=utf-8,%23%20Gr%C3%BC%C3%9Fe",
        encoded(b"# Gr\xc3\xbc\xc3\x9fe"),
    ],
)
def test_a_text_file_is_told_as_text_under_its_name(data: str) -> None:
    assert told({"filename": "notes.md", "file_data": data}) == {
        "type": "text",
        "text": "notes.md:\n\n# Grüße",
    }


def test_a_text_file_without_a_name_is_told_as_it_stands() -> None:
    data = "data:application/json;base64," + encoded(b'{"a": 1}')

    assert told({"file_data": data}) == {"type": "text", "text": '{"a": 1}'}


def test_an_image_is_shown_as_one_with_the_detail_asked_for() -> None:
    url = "data:image/png;base64," + encoded(b"\x89PNG")

    assert told({"filename": "a.png", "file_data": url, "detail": "low"}) == {
        "type": "image_url",
        "image_url": {"url": url, "detail": "low"},
    }
    assert told({"filename": "a.png", "file_data": encoded(b"\x89PNG")})["image_url"] == {
        "url": url
    }


@pytest.mark.parametrize(
    "data", ["data:application/pdf;base64,JVBERg==", "data:;base64,JVBERg==", "JVBERg=="]
)
def test_a_pdf_goes_on_as_a_file(data: str) -> None:
    file = {"file_data": data, "filename": "a.pdf"}

    assert told(file) == {"type": "file", "file": file}


def test_what_nothing_says_the_type_of_goes_on_as_a_file() -> None:
    assert told({"file_data": "JVBERg=="}) == {"type": "file", "file": {"file_data": "JVBERg=="}}


def test_a_file_that_chat_has_no_part_for_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameterError, match="application/zip") as caught:
        told({"filename": "a.zip", "file_data": "data:application/zip;base64,UEs="})

    assert caught.value.param == "input[0].content[0]"


@pytest.mark.parametrize("data", ["data:text/plain;base64,/w==", "data:text/plain;base64,?"])
def test_text_that_is_none_is_refused_by_name(data: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        told({"file_data": data})

    assert caught.value.param == "input[0].content[0].file_data"
