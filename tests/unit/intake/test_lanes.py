"""Rules of a WebSocket session: orders, lanes, and what is kept for the next turn."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.errors import ApiError
from services.intake.sockets.lanes import (
    MOST_LANES,
    MOST_QUEUED,
    NO_CONTEXT,
    Context,
    Contexts,
    Create,
    Lane,
    Lanes,
    join,
    lane_of,
    prepared_by,
    read_create,
    read_event,
)

ITEMS = st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2), max_size=4)


def create(*, stream_id: str | None = None, size: int = 1, **body: Any) -> Create:
    return Create(stream_id, {"model": "m", "input": "hi", **body}, generate=True, size_bytes=size)


def context(response_id: str, *, size: int = 100, **changes: Any) -> Context:
    items = orjson.dumps(["x" * (size - 4)])
    assert len(items) == size
    known: dict[str, Any] = {"items": items, "stored_ids": (), "stored": False, **changes}
    return Context(response_id, **known)


def answer(response_id: str, text: str) -> dict[str, Any]:
    return {"id": response_id, "output": [{"type": "message", "content": text}]}


@given(ITEMS, ITEMS)
def test_arrays_are_joined_without_being_read(left: list[Any], right: list[Any]) -> None:
    assert orjson.loads(join(orjson.dumps(left), orjson.dumps(right))) == left + right


def test_an_order_is_the_body_of_a_request_without_its_envelope() -> None:
    event = {"type": "response.create", "stream_id": "a", "model": "m", "stream": True, "new": 1}
    read = read_create(event | {"background": False, "generate": None}, size_bytes=7)
    assert read == Create(
        "a", {"model": "m", "new": 1, "stream": True}, generate=True, size_bytes=7
    )
    assert not read_create(event | {"generate": False}, size_bytes=7).generate


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("stream", value) for value in (False, 1, "true")),
        *(("background", value) for value in (True, 0, "no")),
        *(("generate", value) for value in (0, 1, "false")),
        *(("stream_id", value) for value in ("", " ", "a/b", "ü", "a\n", "x" * 257, 7, ["a"])),
    ],
)
def test_an_order_with_a_wrong_envelope_is_refused_by_the_name_of_the_field(
    field: str, value: Any
) -> None:
    with pytest.raises(ApiError) as raised:
        read_create({"type": "response.create", field: value}, size_bytes=1)
    assert (raised.value.status, raised.value.param) == (400, field)


@pytest.mark.parametrize("name", ["a", "A-1_.", "x" * 256])
def test_a_lane_has_a_harmless_name(name: str) -> None:
    assert lane_of({"stream_id": name}) == name
    assert lane_of({"stream_id": None}) is None


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "{}", '{"type": 1}', '"\ud800"'])
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(ApiError):
        read_event(text)


def test_a_context_grows_by_what_was_asked_and_said() -> None:
    first = NO_CONTEXT.after({"input": "one"}, answer("r1", "1"), stored=True)
    second = first.after(
        {"input": [{"role": "user", "content": "two"}]}, answer("r2", "2"), stored=False
    )
    assert [item["content"] for item in orjson.loads(second.items)] == ["one", "1", "two", "2"]
    assert (first.stored_ids, first.stored) == (("r1",), True)
    assert (second.stored_ids, second.stored) == (("r1",), False)


@pytest.mark.parametrize(
    ("kept", "store", "own"),
    [(True, None, 1), (True, False, 1), (False, False, 1), (False, None, 2)],
)
def test_only_what_is_stored_after_what_is_not_carries_all_of_it_itself(
    kept: bool, store: bool | None, own: int
) -> None:
    before = Context("r1", b'[{"content":"old"}]', (), stored=kept)
    body, history = create(store=store).body_after(before)
    items = body["input"] if isinstance(body["input"], list) else [body["input"]]
    assert len(items) == own
    assert len(items) + len(orjson.loads(history)) == 2


def test_a_warm_up_prepares_what_the_next_turn_leaves_out() -> None:
    prepared = prepared_by({"instructions": "be brief", "tools": [], "temperature": 1})
    before = Context("r1", b"[]", (), stored=False, prepared=prepared)
    assert create().body_after(before)[0]["instructions"] == "be brief"
    assert create(instructions="be long").body_after(before)[0]["instructions"] == "be long"
    assert "temperature" not in create().body_after(before)[0]
    assert before.after({"input": "x"}, answer("r2", "y"), stored=False).prepared == {}


def test_a_connection_has_so_many_lanes_and_the_one_without_a_name() -> None:
    lanes = Lanes(max_queued_bytes=1_000)
    for number in range(MOST_LANES):
        lanes.take(lanes.put(create(stream_id=str(number))))
    with pytest.raises(ApiError) as raised:
        lanes.put(create(stream_id="one more"))
    assert raised.value.code == "websocket_stream_limit_reached"
    lanes.take(lanes.put(create()))
    lanes.put(create(stream_id="0"))
    assert len(lanes.all()) == MOST_LANES + 1


@pytest.mark.parametrize(("size", "fits"), [(1, MOST_QUEUED), (300, 3)])
def test_what_waits_is_bounded_in_number_and_bytes(size: int, fits: int) -> None:
    lanes = Lanes(max_queued_bytes=1_000)
    lane = None
    for _ in range(fits):
        lane = lanes.put(create(size=size))
    with pytest.raises(ApiError) as raised:
        lanes.put(create(size=size))
    assert (raised.value.status, raised.value.code) == (429, "websocket_queue_full")
    assert raised.value.retry_after_seconds == 1
    assert lane is not None
    lanes.take(lane)
    lanes.put(create(size=size))


def test_a_lane_remembers_its_latest_alone_and_no_other_connection_sees_it() -> None:
    kept = Contexts(max_bytes=1_000)
    one, two = Lane(None), Lane("two")
    kept.keep("a", one, context("r1"))
    kept.keep("a", two, context("r2"))
    assert kept.find("b", "r1") is None
    kept.keep("a", one, context("r3", size=50))
    assert kept.find("a", "r1") is None
    assert kept.find("a", "r2") is not None
    assert kept.find("a", "r3") is not None
    assert kept.size_bytes == 150
    for lane in (one, two, one):
        kept.forget("a", lane)
    assert kept.size_bytes == 0


def test_above_the_bound_the_least_recently_used_goes() -> None:
    kept = Contexts(max_bytes=300)
    lanes = [Lane(str(number)) for number in range(4)]
    for number in range(3):
        kept.keep("a", lanes[number], context(f"r{number}"))
    assert kept.find("a", "r0") is not None
    kept.keep("b", lanes[3], context("r3"))
    assert kept.find("a", "r1") is None
    assert kept.find("a", "r0") is not None
    assert kept.size_bytes == 300
    kept.keep("b", lanes[3], context("r4", size=301))
    assert kept.find("b", "r4") is None
    assert kept.find("b", "r3") is None
    kept.forget("a", lanes[1])
    assert kept.size_bytes == 200


def test_what_a_warm_up_prepared_counts_as_well() -> None:
    kept = Contexts(max_bytes=300)
    one, two = Lane("one"), Lane("two")
    kept.keep("a", one, context("r1", prepared={"tools": []}, prepared_bytes=150))
    assert kept.size_bytes == 250
    kept.keep("a", two, context("r2"))
    assert kept.find("a", "r1") is None
    assert kept.size_bytes == 100
    kept.keep("a", two, context("r3", prepared={"tools": []}, prepared_bytes=201))
    assert kept.find("a", "r3") is None
    assert kept.size_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(10, 400), st.booleans()), max_size=30))
def test_the_bytes_that_are_kept_are_counted_right(steps: list[tuple[int, int, bool]]) -> None:
    kept = Contexts(max_bytes=500)
    lanes = [Lane(str(number)) for number in range(4)]
    for step, (number, size, forgets) in enumerate(steps):
        if forgets:
            kept.forget("a", lanes[number])
        else:
            kept.keep("a", lanes[number], context(f"r{step}", size=size))
        assert kept.size_bytes == sum(len(one.items) for one in kept._kept.values()) <= 500
