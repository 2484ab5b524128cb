"""However a stream is cut into chunks, the turn comes to the same."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker_chat.turns import Chunk, call, delta, finished, run

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CUSTOM = {"tools": [{"type": "custom", "name": "shell"}]}
# Other work on the machine must not fail a test, so examples have no deadline.
EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def _cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@EXAMPLES
@given(st.data(), TEXT, TEXT, TEXT)
def test_text_reasoning_and_refusal_survive_any_cut(
    data: st.DataObject, reasoning: str, text: str, refusal: str
) -> None:
    fields = {"reasoning_content": reasoning, "content": text, "refusal": refusal}
    chunks = [
        delta(**{name: piece}) for name, whole in fields.items() for piece in data.draw(_cut(whole))
    ]
    _, end = run([*chunks, finished()])

    parts = [part for item in end.output for part in item["content"]]
    told = [part.get("text", part.get("refusal")) for part in parts]
    assert [words for words in told if words] == [words for words in fields.values() if words]


@EXAMPLES
@given(st.data(), st.lists(st.dictionaries(TEXT, TEXT, max_size=3), min_size=1, max_size=4))
def test_parallel_calls_survive_any_cut_and_any_order(
    data: st.DataObject, arguments: list[dict[str, str]]
) -> None:
    queues = [
        [call(index, piece) for piece in data.draw(_cut(json.dumps(value)))]
        for index, value in enumerate(arguments)
    ]
    chunks: list[Chunk] = []
    for index in range(len(queues)):
        chunks.append(call(index, "", name=f"f{index}", call_id=f"call_{index}"))
        if data.draw(st.booleans()):
            chunks += queues[index]
            queues[index] = []
    while pending := [queue for queue in queues if queue]:
        chunks.append(data.draw(st.sampled_from(pending)).pop(0))
    _, end = run([*chunks, finished("tool_calls")])

    assert [item["name"] for item in end.output] == [f"f{n}" for n in range(len(arguments))]
    assert [json.loads(item["arguments"]) for item in end.output] == arguments


@EXAMPLES
@given(st.data(), TEXT, st.booleans(), st.sampled_from([None, 2, (", ", ":")]))
def test_custom_input_survives_any_cut(
    data: st.DataObject, text: str, ascii_only: bool, style: Any
) -> None:
    layout = {"separators": style} if isinstance(style, tuple) else {"indent": style}
    wrapped = json.dumps({"input": text}, ensure_ascii=ascii_only, **layout)
    pieces = [call(0, piece) for piece in data.draw(_cut(wrapped))]
    _, end = run([call(0, name="shell"), *pieces, finished("tool_calls")], CUSTOM)

    assert end.output[0]["input"] == text


@EXAMPLES
@given(st.data(), st.text('{}"\\inputud83cdef: x', max_size=40), st.booleans())
def test_even_broken_custom_input_does_not_depend_on_the_cut(
    data: st.DataObject, tail: str, wrapped: bool
) -> None:
    arguments = f'{{"input": "{tail}' if wrapped else tail
    cut = [call(0, piece) for piece in data.draw(_cut(arguments))]
    opening, closing = call(0, name="shell"), finished("tool_calls")
    _, in_pieces = run([opening, *cut, closing], CUSTOM)
    _, at_once = run([opening, call(0, arguments), closing], CUSTOM)

    assert in_pieces.output[0]["input"] == at_once.output[0]["input"]
    in_pieces.output[0]["input"].encode()
