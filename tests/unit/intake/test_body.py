"""Which JSON intake takes."""

from __future__ import annotations

import orjson
import pytest

from services.intake.body import parse_json
from services.intake.errors import ApiError


@pytest.mark.parametrize("depth", [1, 150, 190])
def test_what_is_taken_can_be_written_again_within_messages(depth: int) -> None:
    document = parse_json(b"[" * depth + b"]" * depth)
    for _ in range(50):
        document = {"data": document}
    assert orjson.loads(orjson.dumps(document)) == document


@pytest.mark.parametrize("open_close", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("depth", [200, 254, 255, 1000])
def test_what_is_nested_too_deeply_is_refused(open_close: tuple[bytes, bytes], depth: int) -> None:
    begin, end = open_close
    with pytest.raises(ApiError) as refused:
        parse_json(begin * depth + b"1" + end * depth)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert parse_json(b"[" + b"[]," * 1000 + b"1]") == [*([[]] * 1000), 1]


@pytest.mark.parametrize("body", [b"", b"{", b"nope", b"1e999", b'"\\ud800"', b"[" * 2000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_json(body)
    assert refused.value.code == "invalid_json"
