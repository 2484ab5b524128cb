"""Tool calls become items, however a server numbers, repeats or cuts them."""

import json

import pytest

from tests.unit.worker_chat.turns import Chunk, call, delta, finished, run, types

CUSTOM = {"tools": [{"type": "custom", "name": "shell"}]}
PARIS, ROME = '{"city":"Paris"}', '{"city":"Rome"}'


def test_a_call_becomes_a_function_call_with_its_events_in_order() -> None:
    events, end = run(
        [
            call(0, "", name="weather", call_id="call_a"),
            call(0, '{"city"'),
            call(0, ':"Paris"}'),
            finished("tool_calls"),
        ]
    )

    assert types(events) == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert events[0]["item"]["arguments"] == ""
    assert end.status == "completed"
    assert end.output == [
        {
            "id": "fc_0",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_a",
            "name": "weather",
            "arguments": PARIS,
        }
    ]


def test_text_before_a_call_is_closed_when_the_call_opens() -> None:
    events, _ = run([delta(content="Wait."), call(0, PARIS, name="weather"), finished()])

    assert types(events)[5:7] == ["output_item.done", "output_item.added"]


def test_a_call_closes_when_the_next_one_opens() -> None:
    events, end = run(
        [
            call(0, PARIS, name="weather", call_id="a"),
            call(1, "", name="weather", call_id="b"),
            call(1, ROME),
            finished("tool_calls"),
        ]
    )

    assert types(events)[3:5] == ["output_item.done", "output_item.added"]
    assert [item["call_id"] for item in end.output] == ["a", "b"]


SEQUENCES: dict[str, list[Chunk]] = {
    "both in one chunk": [
        delta(
            tool_calls=[
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": PARIS}},
                {"index": 1, "id": "b", "function": {"name": "f", "arguments": ROME}},
            ]
        )
    ],
    "interleaved": [
        call(0, "", name="f", call_id="a"),
        call(1, "", name="f", call_id="b"),
        call(0, '{"city":'),
        call(1, '{"city":"R'),
        call(0, '"Paris"}'),
        call(1, 'ome"}'),
    ],
    "interleaved with text between": [
        call(0, '{"city":', name="f"),
        delta(content="and"),
        call(1, ROME, name="f"),
        call(0, '"Paris"}'),
    ],
    "all with index 0": [
        call(0, PARIS, name="f", call_id="a"),
        call(0, ROME, name="f", call_id="b"),
    ],
    "all with index 0 and without ids": [call(0, PARIS, name="f"), call(0, ROME, name="f")],
    "without index": [
        call(None, PARIS, name="f", call_id="a"),
        call(None, ROME, name="f", call_id="b"),
    ],
    "id and name in every delta": [
        call(0, '{"city":', name="f", call_id="a"),
        call(0, '"Paris"}', name="f", call_id="a"),
        call(1, ROME, name="f", call_id="b"),
    ],
    "another id in every delta": [
        call(0, "", name="f", call_id="a1"),
        call(0, '{"city":"Paris"', name="f", call_id="a2"),
        call(0, "}", name="f", call_id="a3"),
        call(0, "", name="f", call_id="a4"),
        call(1, ROME, name="f", call_id="b1"),
    ],
    "arguments before the name": [
        call(0, '{"city":', call_id="a"),
        call(0, '"Paris"}', name="f"),
        call(1, ROME, name="f"),
    ],
    "arguments as objects": [
        call(0, {"city": "Paris"}, name="f"),
        call(1, {"city": "Rome"}, name="f"),
    ],
    "blanks after the end": [
        call(0, PARIS, name="f"),
        call(1, ROME, name="f"),
        call(0, "\n"),
    ],
}


@pytest.mark.parametrize("chunks", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_parallel_calls_are_told_apart(chunks: list[Chunk]) -> None:
    _, end = run([*chunks, finished("tool_calls")])

    calls = [item for item in end.output if item["type"] == "function_call"]
    assert [json.loads(item["arguments"])["city"] for item in calls] == ["Paris", "Rome"]
    assert len({item["call_id"] for item in calls}) == 2
    assert {item["name"] for item in calls} == {"f"}


def test_a_call_without_id_gets_one() -> None:
    _, end = run([call(0, PARIS, name="f"), finished("tool_calls")])

    assert end.output[0]["call_id"].startswith("call_")


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    _, end = run([call(0, name="now", call_id="a"), finished("tool_calls")])

    assert end.output[0]["arguments"] == "{}"


def test_the_deprecated_function_call_is_read_too() -> None:
    chunks = [
        delta(function_call={"name": "f", "arguments": '{"city":'}),
        delta(function_call={"arguments": '"Paris"}'}),
        finished("function_call"),
    ]
    _, end = run(chunks)

    assert end.output[0]["arguments"] == PARIS


def test_a_call_that_never_gets_a_name_fails_the_turn() -> None:
    _, end = run([call(0, PARIS, call_id="a"), finished("tool_calls")])

    assert end.status == "failed"
    assert end.error == {
        "code": "server_error",
        "message": "the provider sent a tool call without a name",
    }


def test_a_call_cut_off_by_the_limit_is_incomplete() -> None:
    _, end = run([call(0, '{"city":', name="f"), finished("length")])

    assert end.status == "incomplete"
    assert end.output[0]["status"] == "incomplete"
    assert end.output[0]["arguments"] == '{"city":'


def test_a_call_of_a_custom_tool_is_told_as_its_input() -> None:
    events, end = run(
        [
            call(0, "", name="shell", call_id="a"),
            call(0, '{"inp'),
            call(0, 'ut": "ls\\n'),
            call(0, '-l"}'),
            finished("tool_calls"),
        ],
        CUSTOM,
    )

    assert types(events) == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert [e["delta"] for e in events if e["type"].endswith("delta")] == ["ls\n", "-l"]
    assert end.output[0]["type"] == "custom_tool_call"
    assert end.output[0]["input"] == "ls\n-l"
    assert end.output[0]["id"].startswith("ctc_")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param("ls -l", "ls -l", id="no wrapper at all"),
        pytest.param('"ls -l"', "ls -l", id="a bare JSON string"),
        pytest.param('{"why": 1, "input": "ls"}', "ls", id="other fields first"),
        pytest.param('{"input": {"a": 1}}', '{"a": 1}', id="not a string"),
        pytest.param('{"command": "ls"}', '{"command": "ls"}', id="another field"),
        pytest.param('{"input": "ls -', "ls -", id="cut off in the text"),
        pytest.param('{"input": "ls \\u26', "ls ", id="cut off in an escape"),
        pytest.param('{"input": "a\\ud83d\\ude00b"}', "a\U0001f600b", id="a surrogate pair"),
        pytest.param('{"input": "a\\ud83db"}', "a\ufffdb", id="half a surrogate pair"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_custom_input_gets_through_whatever_the_model_makes_of_the_wrapper(
    arguments: str, expected: str
) -> None:
    pieces = [call(0, character) for character in arguments]
    _, end = run([call(0, name="shell"), *pieces, finished("tool_calls")], CUSTOM)

    assert end.output[0]["input"] == expected


def test_a_second_call_is_not_made_when_calls_may_not_be_parallel() -> None:
    chunks = [
        call(0, '{"a":1}', name="f", call_id="c1"),
        call(1, '{"b":', name="g", call_id="c2"),
        call(1, "2}"),
        finished("tool_calls"),
    ]

    _, end = run(chunks, {"parallel_tool_calls": False})

    assert end.status == "completed"
    assert [item["name"] for item in end.output] == ["f"]
    assert len(run(chunks)[1].output) == 2
