"""Which files are found in a response's output, and which are refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.artifacts.domain import Found, Limits, Refused
from services.artifacts.outputs import find_files

LIMITS = Limits(max_files=8, max_bytes=1000)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
B64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{B64}"


def found_in(*items: Any, limits: Limits = LIMITS) -> list[Found | Refused]:
    return find_files({"output": list(items)}, limits)


def message(*parts: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": list(parts)}


def mcp_call(output: object) -> dict[str, Any]:
    text = output if isinstance(output, str) else json.dumps(output)
    return {"id": "mcp_1", "type": "mcp_call", "name": "tool", "output": text}


IMAGE_BLOCK = {"type": "image", "data": B64, "mimeType": "image/png"}
RESOURCE = {"uri": "file:///tmp/a%20b.bin", "mimeType": "x/y", "blob": B64}


@pytest.mark.parametrize(
    ("item", "item_id", "kind", "filename"),
    [
        ({"id": "ig_1", "type": "image_generation_call", "result": B64}, "ig_1", "image", None),
        (
            {"id": "ig_1", "type": "image_generation_call", "result": DATA_URL},
            "ig_1",
            "image",
            None,
        ),
        (
            {
                "id": "ci_1",
                "type": "code_interpreter_call",
                "outputs": [{"type": "logs", "logs": "1"}, {"type": "image", "url": DATA_URL}],
            },
            "ci_1",
            "image",
            None,
        ),
        (message({"type": "output_image", "image_url": DATA_URL}), "msg_1", "image", None),
        (message({"type": "image_url", "image_url": {"url": DATA_URL}}), "msg_1", "image", None),
        (
            message({"type": "output_audio", "data": B64, "transcript": "hello"}),
            "msg_1",
            "audio",
            None,
        ),
        (
            message({"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}}),
            "msg_1",
            "audio",
            None,
        ),
        (
            message({"type": "output_file", "file_data": B64, "filename": "a/b/report.pdf"}),
            "msg_1",
            "file",
            "report.pdf",
        ),
        (
            {
                "call_id": "call_1",
                "type": "function_call_output",
                "output": [{"type": "input_file", "file_data": DATA_URL, "filename": "x.png"}],
            },
            "call_1",
            "file",
            "x.png",
        ),
        (
            {
                "type": "computer_call_output",
                "output": {"type": "computer_screenshot", "image_url": DATA_URL},
            },
            "output_0",
            "image",
            None,
        ),
        (mcp_call([{"type": "text", "text": "hi"}, IMAGE_BLOCK]), "mcp_1", "image", None),
        (mcp_call({"content": [IMAGE_BLOCK], "isError": False}), "mcp_1", "image", None),
        (mcp_call(IMAGE_BLOCK), "mcp_1", "image", None),
        (mcp_call([{"type": "audio", "data": B64}]), "mcp_1", "audio", None),
        (mcp_call([{"type": "resource", "resource": RESOURCE}]), "mcp_1", "file", "a b.bin"),
        (
            mcp_call([{"type": "resource", "resource": RESOURCE | {"name": "n.txt"}}]),
            "mcp_1",
            "file",
            "n.txt",
        ),
    ],
)
def test_a_file_is_found_wherever_the_api_puts_one(
    item: dict[str, Any], item_id: str, kind: str, filename: str | None
) -> None:
    [file] = found_in(item)

    assert isinstance(file, Found)
    assert (file.item_id, file.kind, file.filename) == (item_id, kind, filename)
    assert file.content == PNG


@pytest.mark.parametrize(
    "item",
    [
        message({"type": "output_text", "text": DATA_URL, "annotations": []}),
        message({"type": "output_image", "image_url": "https://example.com/a.png"}),
        message({"type": "input_file", "file_id": "file_1"}),
        {"id": "ig_1", "type": "image_generation_call", "result": None, "status": "generating"},
        {"id": "ci_1", "type": "code_interpreter_call", "outputs": None, "code": "print(1)"},
        {"id": "fc_1", "type": "function_call", "arguments": json.dumps([IMAGE_BLOCK])},
        mcp_call("the answer is [1, 2]"),
        mcp_call("[not json"),
        mcp_call("[" * 100_000),
        mcp_call([1, "two", None, {"type": "text", "text": "x"}]),
        mcp_call([{"type": "resource", "resource": {"uri": "file:///a.txt", "text": "plain"}}]),
        message({"type": ["image"], "data": B64}, {"type": {}, "data": B64}),
        "text",
        None,
    ],
)
def test_what_holds_no_bytes_is_no_file(item: Any) -> None:
    assert found_in(item) == []


def test_positions_count_the_files_of_the_whole_response_in_order() -> None:
    files = found_in(
        {"id": "ig_1", "type": "image_generation_call", "result": B64},
        message({"type": "output_text", "text": "two more"}),
        mcp_call([IMAGE_BLOCK, {"type": "audio", "data": B64}]),
    )

    assert [(file.position, file.item_id, file.kind) for file in files] == [
        (0, "ig_1", "image"),
        (1, "mcp_1", "image"),
        (2, "mcp_1", "audio"),
    ]


@pytest.mark.parametrize(
    "encoded",
    ["not base64!", "AAA", "A" * 5, "é" * 8, "data:image/png;base64", "data:image/png;base64,%%%"],
)
def test_a_malformed_file_is_refused_and_the_others_are_kept(encoded: str) -> None:
    refused, kept = found_in(
        {"id": "ig_1", "type": "image_generation_call", "result": encoded},
        {"id": "ig_2", "type": "image_generation_call", "result": B64},
    )

    assert isinstance(refused, Refused)
    assert (refused.item_id, refused.position, refused.reason) == ("ig_1", 0, "malformed")
    assert isinstance(kept, Found)
    assert (kept.item_id, kept.position) == ("ig_2", 1)


def test_base64_may_have_line_breaks() -> None:
    broken = "\r\n".join(B64[start : start + 76] for start in range(0, len(B64), 76))

    [file] = found_in({"id": "ig_1", "type": "image_generation_call", "result": broken})

    assert isinstance(file, Found)
    assert file.content == PNG


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:,hello%20you", b"hello you"),
        ("data:text/plain;charset=utf-8,a%2Cb", b"a,b"),
        ("DATA:text/plain;BASE64,aGVsbG8%3D", b"hello"),
        ("data:text/plain;base64,", b""),
    ],
)
def test_every_form_of_data_url_is_understood(url: str, content: bytes) -> None:
    [file] = found_in(message({"type": "output_file", "file_data": url}))

    assert isinstance(file, Found)
    assert file.content == content


@pytest.mark.parametrize(
    "encoded",
    [
        base64.b64encode(b"x" * 1001).decode(),
        base64.b64encode(b"x" * 1_000_000).decode(),
        "data:," + "x" * 1001,
        "data:," + "%20" * 1001,
    ],
)
def test_a_file_above_the_limit_is_refused(encoded: str) -> None:
    [refused] = found_in(message({"type": "output_file", "file_data": encoded}))

    assert isinstance(refused, Refused)
    assert refused.reason == "too_large"


def test_a_file_of_just_the_limit_is_kept_also_with_line_breaks() -> None:
    encoded = base64.encodebytes(b"x" * 1000).decode()

    [file] = found_in(message({"type": "output_file", "file_data": encoded}))

    assert isinstance(file, Found)
    assert len(file.content) == 1000


def test_beyond_the_greatest_number_of_files_one_refusal_stands_for_the_rest() -> None:
    files = found_in(mcp_call([IMAGE_BLOCK] * 100))

    assert [isinstance(file, Found) for file in files] == [True] * 8 + [False]
    assert isinstance(files[-1], Refused)
    assert files[-1].reason == "too_many"


def test_the_id_of_an_item_loses_what_no_database_or_header_could_hold() -> None:
    [file] = found_in({"id": "ig_\0\n1", "type": "image_generation_call", "result": B64})

    assert file.item_id == "ig_1"


FIELDS = st.sampled_from(
    [
        *("id", "call_id", "type", "content", "output", "outputs", "result", "image_url", "url"),
        *("data", "file_data", "filename", "resource", "blob", "uri", "name", "input_audio"),
    ]
)
TYPES = ["mcp_call", "message", "image", "image_generation_call", "resource", "output_audio"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=20),
    st.sampled_from([B64, DATA_URL, "data:,x", "[]", '[{"type":"image","data":"AAAA"}]']),
    st.sampled_from(TYPES),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(FIELDS, inner, max_size=5)
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4))
def test_no_output_whatever_its_shape_raises_and_the_result_is_always_the_same(
    output: list[Any],
) -> None:
    first = found_in(*output)

    assert [file.position for file in first] == list(range(len(first)))
    assert found_in(*output) == first


@settings(deadline=None)
@given(JSON)
def test_no_response_whatever_its_shape_raises(output: Any) -> None:
    find_files({"output": output}, LIMITS)
    find_files({}, LIMITS)
