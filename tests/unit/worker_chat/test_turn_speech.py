"""Text, refusals and reasoning of a chat completion become items and events."""

import pytest

from tests.unit.worker_chat.turns import delta, finished, run, types

LOGPROBS_WANTED = {"include": ["message.output_text.logprobs"]}


def test_text_becomes_one_message_with_the_events_of_the_api_in_order() -> None:
    events, end = run(
        [delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"), finished()]
    )

    assert types(events) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[2] == {
        "type": "response.output_text.delta",
        "item_id": "msg_0",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hel",
        "logprobs": [],
    }
    assert end.status == "completed"
    assert end.output == [
        {
            "id": "msg_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}
            ],
        }
    ]


def test_an_opened_item_is_announced_in_progress_and_empty() -> None:
    events, _ = run([delta(content="Hi"), finished()])

    assert events[0]["item"]["status"] == "in_progress"
    assert events[0]["item"]["content"] == []
    assert events[1]["part"]["text"] == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_becomes_an_item_before_the_message(field: str) -> None:
    events, end = run(
        [delta(**{field: "Let me "}), delta(**{field: "think"}), delta(content="4"), finished()]
    )

    assert types(events)[:6] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert [item["type"] for item in end.output] == ["reasoning", "message"]
    assert end.output[0]["content"] == [{"type": "reasoning_text", "text": "Let me think"}]
    assert end.output[0]["summary"] == []


def test_reasoning_told_under_both_names_is_told_once() -> None:
    _, end = run([delta(reasoning="a", reasoning_content="a"), delta(content="b"), finished()])

    assert end.output[0]["content"][0]["text"] == "a"


def test_reasoning_after_text_opens_further_items() -> None:
    _, end = run(
        [delta(content="a"), delta(reasoning="b"), delta(content="c"), finished()],
    )

    assert [item["type"] for item in end.output] == ["message", "reasoning", "message"]


def test_content_in_parts_is_read_as_text_and_reasoning() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    _, end = run(
        [delta(content=[thinking]), delta(content=[{"type": "text", "text": "ok"}]), finished()]
    )

    assert [item["content"][0]["text"] for item in end.output] == ["hm", "ok"]


def test_a_refusal_is_a_part_of_the_message() -> None:
    events, end = run([delta(refusal="I "), delta(refusal="won't"), finished()])

    assert types(events)[2:4] == ["refusal.delta", "refusal.done"]
    assert end.output[0]["content"] == [{"type": "refusal", "refusal": "I won't"}]


def test_a_refusal_after_text_is_the_second_part_of_the_same_message() -> None:
    events, end = run([delta(content="Well"), delta(refusal="No"), finished()])

    assert len(end.output) == 1
    assert [part["type"] for part in end.output[0]["content"]] == ["output_text", "refusal"]
    assert [e["content_index"] for e in events if e["type"].endswith("delta")] == [0, 1]


def test_log_probabilities_travel_when_they_were_asked_for() -> None:
    top = {"token": "Ho", "logprob": -2.0, "bytes": [72, 111]}
    chunk = delta(content="Hi")
    chunk["choices"][0]["logprobs"] = {
        "content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": [top]}]
    }
    events, end = run([chunk, finished()], LOGPROBS_WANTED)

    expected = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [top]}]
    assert events[1]["part"]["logprobs"] == []
    told = [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -2.0}]}]
    assert events[2]["logprobs"] == told
    assert events[3]["logprobs"] == told
    assert end.output[0]["content"][0]["logprobs"] == expected


def test_log_probabilities_nobody_asked_for_are_left_out() -> None:
    chunk = delta(content="Hi")
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -0.5}]}
    events, _ = run([chunk, finished()])

    assert events[2]["logprobs"] == []


def test_citations_become_annotations_of_the_text() -> None:
    cited = {"start_index": 0, "end_index": 2, "url": "https://example.org", "title": "Example"}
    chunk = delta(annotations=[{"type": "url_citation", "url_citation": cited}, {"type": "odd"}])
    events, end = run([delta(content="Hi"), chunk, finished()])

    assert events[3]["type"] == "response.output_text.annotation.added"
    assert end.output[0]["content"][0]["annotations"] == [{"type": "url_citation"} | cited]


def test_a_turn_without_a_word_is_an_empty_message() -> None:
    events, end = run([delta(role="assistant", content=""), finished()])

    assert types(events)[2] == "output_text.done"
    assert end.output[0]["content"][0]["text"] == ""
