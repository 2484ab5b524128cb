"""What the clients of the load notice by themselves."""

from __future__ import annotations

import random

import orjson
import pytest

from tests.chaos.load.client import hear
from tests.chaos.load.log import Asked, Heard, Json, Log
from tests.chaos.load.words import expect, expect_memory, say, words


def frame(kind: str, number: int, **more: object) -> bytes:
    event = {"type": kind, "sequence_number": number, **more}
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


def answered(text: str) -> Asked:
    asked = Log().note("json", say("say: {mark}"), "http://one")
    content = [{"type": "output_text", "text": text}]
    output = [{"type": "message", "content": content}]
    asked.finish({"id": "resp_1", "status": "completed", "output": output})
    return asked


def test_a_request_carries_its_mark_in_text_and_metadata() -> None:
    log = Log()
    first, second = (log.note("json", say("say: {mark}"), "http://one") for _ in range(2))
    assert first.mark != second.mark
    assert first.body["input"] == f"{first.mark}\nsay: {first.mark}"
    assert first.body["metadata"] == {"mark": first.mark, "chat_id": first.mark}


def test_a_stream_is_heard_until_its_end() -> None:
    asked = Log().note("stream", say("say: hi", stream=True), "http://one")
    asked.heard = Heard()
    place: Json = {"output_index": 0, "content_index": 0}
    hear(asked, frame("response.created", 0, response={"id": "resp_1", "status": "queued"}))
    hear(asked, b": heartbeat\n\n")
    for number, delta in enumerate(("a", "b"), 1):
        hear(asked, frame("response.output_text.delta", number, delta=delta, **place))
    assert (asked.response_id, asked.outcome) == ("resp_1", "open")
    done = {"id": "resp_1", "status": "completed", "output": []}
    hear(asked, frame("response.completed", 3, response=done))
    assert asked.heard.numbers == [0, 1, 2, 3]
    assert asked.heard.text((0, 0)) == "ab"
    assert (asked.outcome, asked.answer, asked.problems) == ("answered", done, [])


def test_an_event_without_a_number_and_another_id_are_noted() -> None:
    asked = Log().note("stream", say("say: hi", stream=True), "http://one")
    asked.heard = Heard()
    hear(asked, b'data: {"type": "response.created"}\n\n')
    for name in ("resp_1", "resp_2"):
        hear(asked, frame("response.created", 0, response={"id": name, "status": "queued"}))
    assert len(asked.problems) == 1
    assert asked.other_ids == {"resp_2"}


@pytest.mark.parametrize(("text", "complaints"), [("mine", 0), ("other", 1)])
def test_an_answer_is_held_against_what_was_asked_for(text: str, complaints: int) -> None:
    asked = answered(text)
    expect(asked, "mine")
    assert len(asked.problems) == complaints


@pytest.mark.parametrize(
    ("found", "complaints"),
    [("a|b", 0), ("a|perhaps|b", 0), ("b|a", 1), ("a", 1), ("", 1)],
)
def test_a_memory_has_all_that_was_said_in_order(found: str, complaints: int) -> None:
    asked = answered(found)
    expect_memory(asked, ["a", "b"])
    assert len(asked.problems) == complaints


def test_the_same_seed_says_the_same() -> None:
    first, second = (words(random.Random(7)) for _ in range(2))
    assert first == second
