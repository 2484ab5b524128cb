"""What is put together once per model is what putting it together each time would give."""

from __future__ import annotations

import pytest

from tests.load.templates import delta_text, script

NAME, TOKEN = b"0123456789abcdef" * 2, b"0000000042"


@pytest.mark.parametrize("deltas", [0, 1, 5, 120])
def test_an_unpaced_stream_is_a_write_for_each_delta_between_head_and_tail(deltas: int) -> None:
    chosen = script(deltas, 0)
    texts = [delta_text(TOKEN, number, 0) for number in range(deltas)]
    assert list(chosen.writes(NAME, TOKEN)) == [
        chosen.head(NAME),
        *(chosen.delta(NAME, text, number) for number, text in enumerate(texts)),
        chosen.tail(NAME, b"".join(texts)),
    ]


def test_two_streams_of_a_model_differ_in_name_and_token_alone() -> None:
    chosen = script(3, 0)
    one = b"".join(chosen.writes(NAME, TOKEN))
    other = b"".join(chosen.writes(NAME[::-1], TOKEN[::-1]))
    assert one != other
    assert one.replace(NAME, NAME[::-1]).replace(TOKEN, TOKEN[::-1]) == other
