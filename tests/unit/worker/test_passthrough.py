"""The byte pipe: the provider's events, our ids, and numbers that never go back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.domain import Event, Job
from services.worker.errors import UpstreamError
from services.worker.runs.passthrough import Passthrough
from tests.unit.worker.runs import (
    Provider,
    Written,
    as_sse,
    check_stream,
    events_of,
    job,
    kinds,
    script_events,
)


async def pipe(
    *answer: Any, skip_through: int = -1, cut: int = 1 << 20, of: Job | None = None
) -> tuple[Passthrough, Written]:
    out = Written()
    made = Passthrough(of or job(), out, max_event_bytes=1 << 26, skip_through=skip_through)
    await made.run(Provider([list(answer)], cut=cut), b"{}")
    return made, out


async def broken(*answer: Any, skip_through: int = -1) -> tuple[Passthrough, Written]:
    out = Written()
    made = Passthrough(job(), out, max_event_bytes=1 << 26, skip_through=skip_through)
    with pytest.raises(UpstreamError):
        await made.run(Provider([list(answer)]), b"{}")
    return made, out


def unnumbered(events: list[Event]) -> list[Event]:
    return [{k: v for k, v in event.items() if k != "sequence_number"} for event in events]


async def test_only_events_about_the_whole_response_are_rewritten() -> None:
    events = script_events("script:everything")
    ours = job(previous_response_id="resp_before")
    made, out = await pipe(as_sse(events), of=ours)
    [*told, last] = events
    assert [e for e in out.events if "response" not in e] == [
        e for e in told if "response" not in e
    ]
    for event in out.events:
        if "response" in event:
            assert event["response"]["id"] == "resp_ours"
            assert event["response"]["previous_response_id"] is None
    assert made.terminal is not None
    assert made.terminal["response"]["output"] == last["response"]["output"]
    check_stream([*out.events, made.terminal])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200))
async def test_however_the_bytes_are_cut_the_client_gets_the_same(cut: int) -> None:
    stream = as_sse(script_events("script:unicode")).replace(b"\n", b"\r\n")
    whole, cut_up = await pipe(stream), await pipe(stream, cut=cut)
    assert cut_up[1].events == whole[1].events
    assert cut_up[0].terminal == whole[0].terminal


async def test_a_provider_without_numbers_gets_some() -> None:
    events = script_events("say: a b c")
    made, out = await pipe(as_sse(unnumbered(events)))
    assert made.terminal is not None
    check_stream([*out.events, made.terminal])
    assert kinds([*out.events, made.terminal]) == kinds(events)


async def test_a_second_attempt_goes_on_after_what_the_first_one_told() -> None:
    events = script_events("say: a b c")
    for source in (events, unnumbered(events)):
        made, out = await pipe(as_sse(source), skip_through=1)
        assert made.terminal is not None
        check_stream([*out.events, made.terminal], begins_at=2)
        assert kinds(out.events)[0] == "output_item.added"


async def test_a_provider_that_begins_with_fewer_events_loses_none_of_its_output() -> None:
    created, _, *rest = script_events("say: a b c")
    renumbered = [{**e, "sequence_number": n} for n, e in enumerate([created, *rest])]
    made, out = await pipe(as_sse(renumbered), skip_through=2)
    assert made.terminal is not None
    check_stream([*out.events, made.terminal], begins_at=3)
    assert kinds([*out.events, made.terminal]) == kinds(rest)


async def test_a_stream_without_output_still_ends_after_what_was_told() -> None:
    made, out = await pipe(
        as_sse([script_events("say: a")[-1] | {"sequence_number": 0}]), skip_through=1
    )
    assert out.events == []
    assert made.terminal is not None
    assert made.terminal["sequence_number"] == 2


async def test_comments_and_what_follows_the_end_are_not_passed_on() -> None:
    events = script_events("say: a")
    stream = b": hello\n\n" + as_sse(events) + b"data: [DONE]\n\n" + as_sse(events)
    made, out = await pipe(stream)
    assert made.terminal is not None
    assert len(out.events) == len(events) - 1


async def test_what_was_delivered_before_a_break_is_known() -> None:
    events = script_events("say: one two three")
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    upto = events.index(deltas[1]) + 1
    made, out = await broken(as_sse(events[:upto]), UpstreamError("cut"))
    built = made.partial()
    assert built.delivered
    assert built.last_sequence_number == out.events[-1]["sequence_number"]
    [item] = built.items
    assert item["status"] == "incomplete"
    assert item["content"][0]["text"] == deltas[0]["delta"] + deltas[1]["delta"]


async def test_the_last_number_is_known_although_the_text_was_too_long_to_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.worker.runs.passthrough._KEPT_BYTES", 100)
    events = script_events("say: one two three")[:-1]
    made, out = await broken(*(as_sse([event]) for event in events))
    assert made.partial().last_sequence_number == out.events[-1]["sequence_number"]


@pytest.mark.parametrize("together", [True, False])
async def test_garbage_is_piped_however_the_bytes_were_cut(together: bool) -> None:
    *told, last = script_events("say: a")
    pieces = [as_sse(told), b"data: {nonsense}\n\n", as_sse([last])]
    made, out = await pipe(*([b"".join(pieces)] if together else pieces))
    assert made.terminal is not None
    assert out.stream.endswith(b"data: {nonsense}\n\n")


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_that_was_cut_short_breaks_the_stream(together: bool) -> None:
    *told, last = script_events("say: a")
    cut = b'data: {"type":"response.output_text.delta","delta":"bro\n\n'
    pieces = [as_sse(told), cut, as_sse([last])]
    made, out = await broken(*([b"".join(pieces)] if together else pieces))
    assert cut not in out.stream
    assert made.partial().last_sequence_number == told[-1]["sequence_number"]


async def test_garbage_that_was_piped_does_not_hide_what_came_with_it() -> None:
    [created, begun, added, *_] = script_events("say: one")
    garbage = b'data: {nonsense}\n\ndata: {"output_index": {}, "type": 7}\n\n'
    made, out = await broken(as_sse([created, begun]), as_sse([added]), garbage)
    assert made.partial().items == [added["item"] | {"status": "incomplete"}]
    assert garbage in out.stream


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.completed", "sequence_number": 9},
        {"type": "response.completed", "sequence_number": 9, "response": "x"},
        {"type": ["response"], "sequence_number": 9, "response": {}},
        {"sequence_number": 9, "response": {}},
        {"type": None, "response": {"a": 1}},
    ],
)
async def test_an_event_of_another_shape_is_the_provider_s_fault(event: dict[str, Any]) -> None:
    created, *_ = script_events("say: a")
    await broken(as_sse([created]), b"data: " + orjson.dumps(event) + b"\n\n")


async def test_a_terminal_event_decides_the_status_when_its_response_has_none() -> None:
    last = script_events("say: a")[-1]
    del last["response"]["status"]
    made, _ = await pipe(as_sse([last]))
    assert made.terminal is not None
    assert made.terminal["response"]["status"] == "completed"


async def test_an_answer_that_is_no_stream_is_the_provider_s_fault() -> None:
    out = Written()
    made = Passthrough(job(), out, max_event_bytes=1 << 26)
    provider = Provider([b"{}"], streams=False)
    with pytest.raises(UpstreamError, match="event stream"):
        await made.run(provider, b"{}")
    assert events_of(out.stream) == []


async def test_what_a_provider_complained_of_is_why_its_stream_ended_early() -> None:
    told = script_events("script:error")
    out = Written()
    made = Passthrough(job(), out, max_event_bytes=1 << 26)
    with pytest.raises(UpstreamError, match="The scripted upstream failed on request"):
        await made.run(Provider([as_sse(told)]), b"{}")
    assert events_of(out.stream) != []
