"""`POST /v1/responses` over ASGI: what is accepted, refused, answered and let go."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaConnectionError
from sqlalchemy.exc import DBAPIError

from contracts.packs import Flag
from services.intake.domain import StoredResponse
from services.intake.streaming.followers import HEARTBEAT
from tests.unit.intake.apps import Exchange, Intake, last_json

GOOD: dict[str, Any] = {"model": "gpt-5.1", "input": "hello"}


def body(**changes: Any) -> bytes:
    return orjson.dumps({**GOOD, **changes})


async def ask(intake: Intake, raw: bytes | list[bytes], **options: Any) -> Exchange:
    return await Exchange(intake, raw, **options).run()


async def accepted(intake: Intake, exchange: Exchange) -> asyncio.Task[Exchange]:
    """Start a request and return once its command is on the log."""
    task = asyncio.create_task(exchange.run())
    async with asyncio.timeout(5):
        await intake.producer.arrived.wait()
    return task


async def test_a_json_answer_is_the_worker_s_bytes() -> None:
    intake = Intake()
    task = await accepted(intake, Exchange(intake, body()))
    intake.publish(last_json(intake, b'{"id": "resp_1"}'))
    answer = await task
    assert (answer.status, answer.body) == (200, b'{"id": "resp_1"}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-request-id"].startswith("req_")
    assert intake.responses.open_requests == 0
    assert intake.hub.followers == 0


async def test_the_command_says_all_the_worker_needs() -> None:
    intake = Intake()
    raw = body(metadata={"chat_id": "chat_1"}, user="ada", store=False)
    task = await accepted(intake, Exchange(intake, raw))
    command = intake.producer.command()
    assert intake.producer.topics() == ["responses.commands"]
    assert command["request"] == orjson.loads(raw)
    assert command["events_partition"] == 3
    assert (command["stream"], command["store"]) == (False, False)
    assert command["principal"] == {
        "project": "default",
        "key_id": "key_admin",
        "user": "ada",
        "chat": "chat_1",
    }
    intake.publish(last_json(intake, b"{}"))
    await task


async def test_an_error_of_the_worker_keeps_its_status() -> None:
    intake = Intake()
    task = await accepted(intake, Exchange(intake, body()))
    intake.publish(last_json(intake, b'{"error": {}}', status=429))
    assert (await task).status == 429


async def test_a_stream_begins_with_its_first_events_and_ends_with_done() -> None:
    intake = Intake()
    exchange = Exchange(intake, body(stream=True))
    task = await accepted(intake, exchange)
    for _ in range(5):
        await asyncio.sleep(0)
    assert exchange.messages == []
    intake.publish(intake.entry(b"data: 1\n\n"))
    intake.publish(intake.entry(b"data: 2\n\n", index=1, flags=Flag.LAST))
    answer = await task
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert answer.messages[-1]["more_body"] is False


async def test_a_stream_that_waits_gets_a_sign_of_life() -> None:
    intake = Intake()
    task = await accepted(intake, Exchange(intake, body(stream=True)))
    intake.hub.beat()
    for _ in range(5):
        await asyncio.sleep(0)
    intake.publish(intake.entry(b"data: 1\n\n", flags=Flag.LAST))
    assert (await task).body == HEARTBEAT + b"data: 1\n\ndata: [DONE]\n\n"


async def test_a_json_client_is_not_disturbed_by_heartbeats() -> None:
    intake = Intake()
    task = await accepted(intake, Exchange(intake, body()))
    intake.hub.beat()
    await asyncio.sleep(0)
    intake.publish(last_json(intake, b"{}"))
    assert (await task).body == b"{}"


async def test_a_client_that_hangs_up_lets_its_place_go() -> None:
    intake = Intake()
    exchange = Exchange(intake, body(stream=True))
    task = await accepted(intake, exchange)
    intake.publish(intake.entry(b"data: 1\n\n"))
    await asyncio.sleep(0)
    exchange.hang_up()
    await task
    assert intake.responses.open_requests == 0
    assert intake.hub.followers == 0


async def test_a_client_that_reads_too_slowly_is_cut_off() -> None:
    intake = Intake()
    exchange = Exchange(intake, body(stream=True))
    task = await accepted(intake, exchange)
    for index in range(3):
        intake.publish(intake.entry(b"x" * 900, index=index))
    await task
    assert b"[DONE]" not in exchange.body
    assert intake.responses.open_requests == 0


async def test_a_background_response_is_told_as_queued() -> None:
    intake = Intake()
    answer = await ask(intake, body(background=True))
    told = orjson.loads(answer.body)
    assert (told["status"], told["background"]) == ("queued", True)
    assert told["id"] == intake.producer.command()["response_id"]
    assert intake.hub.followers == 0


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"model": "\xff"}', 400, "invalid_json"),
        (b'{"model": "\\ud800"}', 400, "invalid_json"),
        (b"[" * 5_000, 400, "invalid_json"),
        (b"[]", 400, None),
        (b"{}", 400, "missing_required_parameter"),
        (body(model="claude"), 404, "model_not_found"),
        (body(previous_response_id="resp_none"), 400, "previous_response_not_found"),
        (body(conversation="conv_none"), 404, None),
        (b"x" * 20_000, 413, "request_too_large"),
    ],
)
async def test_what_is_refused_is_on_no_topic(raw: bytes, status: int, code: str | None) -> None:
    intake = Intake()
    answer = await ask(intake, raw)
    assert answer.status == status
    assert answer.error["code"] == code
    assert answer.error["type"] == "invalid_request_error"
    assert intake.producer.messages == []
    assert intake.responses.open_requests == 0


async def test_a_body_in_pieces_is_one_body() -> None:
    intake = Intake()
    raw = body()
    exchange = Exchange(intake, [raw[:5], b"", raw[5:9], raw[9:]])
    task = await accepted(intake, exchange)
    intake.publish(last_json(intake, b"{}"))
    assert (await task).status == 200


async def test_a_body_that_grows_too_large_is_refused_before_it_is_whole() -> None:
    intake = Intake()
    exchange = await ask(intake, [b"x" * 6_000] * 100)
    assert exchange.status == 413
    assert exchange.reading == 2


async def test_a_body_that_is_announced_as_too_large_is_not_read() -> None:
    intake = Intake()
    exchange = await ask(intake, b"x" * 20_000, headers={"content-length": "20000"})
    assert exchange.status == 413
    assert exchange.reading == 0


async def test_a_client_that_hangs_up_within_its_body_is_let_go() -> None:
    intake = Intake()
    exchange = Exchange(intake, [])
    exchange.hang_up()
    await exchange.run()
    assert exchange.messages == []


@pytest.mark.parametrize("key", [None, "", "wrong", "sk-antiphon-unknown-key-of-no-one"])
async def test_without_a_key_nothing_is_accepted(key: str | None) -> None:
    intake = Intake()
    answer = await ask(intake, body(), key=key)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert intake.producer.messages == []
    if key:
        assert key not in answer.error["message"]


async def test_above_so_many_open_requests_the_next_one_has_to_wait() -> None:
    intake = Intake(max_open=1)
    task = await accepted(intake, Exchange(intake, body()))
    refused = await ask(intake, body())
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert refused.headers["retry-after"] == "1"
    intake.publish(last_json(intake, b"{}"))
    assert (await task).status == 200


async def test_what_can_not_be_made_durable_is_not_accepted() -> None:
    intake = Intake()
    intake.producer.error = KafkaConnectionError()
    answer = await ask(intake, body())
    assert (answer.status, answer.error["type"]) == (503, "server_error")
    assert "retry-after" in answer.headers
    assert intake.responses.open_requests == 0
    assert intake.hub.followers == 0


async def test_kafka_that_does_not_answer_is_not_waited_for_without_end() -> None:
    intake = Intake(accept_seconds=0.01)
    intake.producer.held = True
    assert (await ask(intake, body())).status == 503


async def test_an_answer_that_takes_too_long_is_a_504_that_names_the_response() -> None:
    intake = Intake(response_seconds=0.01)
    answer = await ask(intake, body())
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert intake.producer.command()["response_id"] in answer.error["message"]


class RefusedValueError(Exception):
    """What PostgreSQL says of text that it can't store."""

    sqlstate = "22021"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DBAPIError("SELECT", {}, Exception("away")), 503),
        (DBAPIError("SELECT", {}, RefusedValueError()), 400),
        (OSError("disk"), 503),
        (KeyError("a bug"), 500),
    ],
)
async def test_whatever_goes_wrong_is_told_in_the_api_s_shape(
    error: Exception, status: int
) -> None:
    intake = Intake()
    intake.shelf.error = error
    answer = await ask(intake, body(previous_response_id="resp_1"))
    assert answer.status == status
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert "x-request-id" in answer.headers


async def test_an_answer_that_breaks_off_is_not_answered_twice() -> None:
    intake = Intake()
    task = await accepted(intake, Exchange(intake, body(stream=True)))
    intake.publish(intake.entry(b"data: 1\n\n"))
    for _ in range(5):
        await asyncio.sleep(0)
    intake.publish(intake.entry(b"claims/none", index=1, flags=Flag.CLAIM))
    answer = await task
    starts = [m for m in answer.messages if m["type"] == "http.response.start"]
    assert len(starts) == 1


def stored(response_id: str, said: str, previous: str | None = None) -> StoredResponse:
    answer = {"type": "message", "role": "assistant", "content": f"re: {said}"}
    return StoredResponse(
        response_id=response_id,
        project="default",
        status="completed",
        background=False,
        stream=False,
        events_partition=0,
        previous_response_id=previous,
        last_sequence_number=None,
        request=orjson.dumps({"input": said}).decode(),
        response=orjson.dumps({"output": [answer]}).decode(),
    )


async def test_a_follow_up_carries_the_whole_conversation() -> None:
    intake = Intake()
    intake.shelf.chains["resp_b"] = [stored("resp_a", "one"), stored("resp_b", "two", "resp_a")]
    task = await accepted(intake, Exchange(intake, body(previous_response_id="resp_b")))
    told = [item["content"] for item in intake.producer.command()["history"]]
    assert told == ["one", "re: one", "two", "re: two"]
    intake.publish(last_json(intake, b"{}"))
    await task


async def test_a_chain_that_is_too_long_or_too_large_is_refused() -> None:
    intake = Intake()
    intake.shelf.chains["long"] = [stored(f"resp_{n}", "x") for n in range(4)]
    intake.shelf.chains["large"] = [stored("resp_a", "x" * 200_000)]
    for name, code in (("long", "chain_too_long"), ("large", "history_too_large")):
        answer = await ask(intake, body(previous_response_id=name))
        assert (answer.status, answer.error["code"]) == (400, code)
        assert answer.error["param"] == "previous_response_id"


async def test_a_response_that_still_runs_can_not_be_followed() -> None:
    intake = Intake()
    row = stored("resp_a", "x")
    running = {"response": None, "stream": True}
    intake.shelf.chains["resp_a"] = [
        StoredResponse(**{name: getattr(row, name) for name in row.__slots__} | running)
    ]
    answer = await ask(intake, body(previous_response_id="resp_a"))
    assert answer.error["code"] == "previous_response_not_finished"
