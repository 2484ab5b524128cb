"""`Idempotency-Key` at two replicas: one response and one upstream call, whoever dies when."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest
from aiohttp import ClientError
from openai import ConflictError

from infra.local.credentials import Credentials
from infra.local.ports import HOST
from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import Replica
from tests.e2e.sse import END, event_of, frames, numbers
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
Both = tuple[Replica, Replica]


async def ask(
    one: Replica, key: str, text: str, *, auth: str | None = None, **parameters: Any
) -> tuple[int, dict[str, str], bytes]:
    headers = {"idempotency-key": key} | ({"authorization": f"Bearer {auth}"} if auth else {})
    body = {"model": MODEL, "input": text, **parameters}
    async with one.http.post("/v1/responses", json=body, headers=headers) as answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, told, await answer.read()


async def test_the_same_request_at_both_replicas_has_one_answer(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"say: once ; {mark}"
    first, second = [await ask(one, mark, text) for one in replicas]
    assert (first[0], second[0]) == (200, 200)
    assert first[2] == second[2]
    assert "idempotent-replayed" not in first[1]
    assert second[1]["idempotent-replayed"] == "true"
    assert second[1]["x-request-id"].startswith("req_")
    assert len(upstream.requests(mark)) == 1


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_many_at_once_on_both_replicas_are_one_response(
    replicas: Both, upstream: UpstreamProcess, mark: str, stream: bool, store: bool
) -> None:
    hold = "hold@8" if stream else "hold"
    text = f"tokens: 20 ; fault:{hold}#{mark}"
    asked = [
        asyncio.create_task(ask(replicas[n % 2], mark, text, stream=stream, store=store))
        for n in range(20)
    ]
    await until(lambda: upstream.requests(mark), "the provider is asked")
    upstream.release(mark)
    answers = await asyncio.gather(*asked)
    assert {status for status, _, _ in answers} == {200}
    bodies = {b"".join(frame + END for frame in frames(body)) if stream else body
              for _, _, body in answers}  # fmt: skip
    assert len(bodies) == 1
    assert b'"status":"completed"' in next(iter(bodies))
    assert sum("idempotent-replayed" in headers for _, headers, _ in answers) == 19
    assert len(upstream.requests(mark)) == 1
    # And later as well.
    assert (await ask(replicas[1], mark, text, stream=stream, store=store))[2] in bodies


async def test_the_official_client_gets_its_response_again(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    headers = {"Idempotency-Key": mark}
    text = f"say: hello ; {mark}"
    one, two = [
        await each.client.responses.create(model=MODEL, input=text, extra_headers=headers)
        for each in replicas
    ]
    assert one == two
    streams = []
    for each in replicas:
        stream = await each.client.responses.create(
            model=MODEL, input=text, stream=True, extra_headers={"Idempotency-Key": f"{mark}-s"}
        )
        streams.append([event async for event in stream])
    assert streams[0] == streams[1]
    with pytest.raises(ConflictError) as refused:
        await (
            replicas[1]
            .client.with_options(max_retries=3)
            .responses.create(model=MODEL, input=f"other {mark}", extra_headers=headers)
        )
    assert refused.value.code == "idempotency_key_reused"
    assert refused.value.param == "Idempotency-Key"
    assert len(upstream.requests(mark)) == 2


async def test_a_request_outlives_its_intake_and_is_answered_to_the_retry_at_the_other(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    text = f"say: done ; {mark} ; fault:hold#{mark}"
    asked = asyncio.create_task(ask(first, mark, text))
    await until(lambda: upstream.requests(mark), "the provider is asked")
    first.kill()
    with pytest.raises(ClientError):
        await asked
    again = asyncio.create_task(ask(second, mark, text))
    upstream.release(mark)
    status, headers, body = await again
    assert (status, headers["idempotent-replayed"]) == (200, "true")
    assert len(upstream.requests(mark)) == 1
    await first.again()
    assert (await ask(first, mark, text))[2] == body


async def test_a_stream_outlives_its_intake_and_is_told_from_its_start_at_the_other(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    text = f"tokens: 30 ; fault:hold@15#{mark}"
    asked = asyncio.create_task(ask(first, mark, text, stream=True))
    await until(lambda: upstream.requests(mark), "the provider is asked")
    first.kill()
    with pytest.raises(ClientError):
        await asked
    again = asyncio.create_task(ask(second, mark, text, stream=True))
    upstream.release(mark)
    _, _, stream = await again
    told = [event_of(frame) for frame in frames(stream)[:-1]]
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert len(upstream.requests(mark)) == 1
    await first.again()


async def test_a_request_whose_command_kafka_did_not_take_is_sent_again_with_its_key(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    text = f"say: after all ; {mark}"
    with first.stack.paused("kafka"):
        status, _, _ = await ask(first, mark, text)
        assert status == 503

    async def answered() -> bytes | None:
        status, _, body = await ask(second, mark, text)
        return body if status == 200 else None

    body = await found(answered, "the request is answered")
    assert (await ask(first, mark, text))[2] == body
    assert len(upstream.requests(mark)) == 1


@pytest.mark.parametrize("age_s", [2, 7200])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"stream": True}, {"store": False}, {"store": False, "stream": True},
     {"background": True}, {"background": True, "stream": True}],
    ids=lambda parameters: "+".join(parameters) or "json",
)  # fmt: skip
async def test_a_key_whose_intake_died_before_it_sent_the_command_keeps_its_response(
    replicas: Both,
    upstream: UpstreamProcess,
    mark: str,
    parameters: dict[str, bool],
    age_s: int,
) -> None:
    body = orjson.dumps({"model": MODEL, "input": f"say: late ; {mark}", **parameters})
    response_id = await promised(replicas[0], mark, body, age_s=age_s)
    headers = {"idempotency-key": mark, "content-type": "application/json"}

    async def told(one: Replica) -> bytes:
        async with one.http.post("/v1/responses", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    first = await told(replicas[1])
    assert response_id.encode() in first
    if not parameters.get("background"):
        assert b'"status":"completed"' in first
    if not (parameters.get("store") is False and age_s > 1800):
        assert response_id.encode() in await told(replicas[0])
    await until(lambda: upstream.requests(mark), "the provider is asked")
    assert len(upstream.requests(mark)) == 1


async def promised(one: Replica, key: str, body: bytes, *, age_s: int) -> str:
    """Leave what an intake leaves that takes a key and dies; return the response's id."""
    ms = int(time.time() * 1000) - age_s * 1000
    response_id = f"resp_{ms:012x}7{uuid4().hex[13:]}"
    password = Credentials.of(one.stack.home).postgres_password
    port = one.stack.part("postgres").port
    connection = await asyncpg.connect(f"postgresql://antiphon:{password}@{HOST}:{port}/antiphon")
    try:
        await connection.execute(
            "INSERT INTO intake.idempotency_keys (project, idempotency_key, body_sha256,"
            " response_id, events_partition, created_at, attempted_at)"
            " VALUES ('default', $1, $2, $3, 5, now() - $4 * interval '1 s',"
            " now() - $4 * interval '1 s')",
            key,
            sha256(b"POST /v1/responses\n" + body).digest(),
            response_id,
            age_s,
        )
    finally:
        await connection.close()
    return response_id


async def test_a_failed_response_is_failed_for_every_request_with_its_key(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"fault:400 ; {mark}"
    answers = [await ask(one, mark, text) for one in (*replicas, *replicas)]
    assert {status for status, _, _ in answers} == {400}
    assert len({body for _, _, body in answers}) == 1
    assert [("idempotent-replayed" in headers) for _, headers, _ in answers] == [
        False, True, True, True,
    ]  # fmt: skip
    assert len(upstream.requests(mark)) == 1
    streams = [await ask(one, f"{mark}-s", text, stream=True) for one in replicas]
    assert streams[0][2] == streams[1][2]
    assert b"response.failed" in streams[0][2]


async def test_a_refusal_that_says_come_again_frees_the_key(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    limit = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}
    # More often than the worker tries.
    upstream.enqueue(
        {"raw": {"status": 429, "body": orjson.dumps(limit).decode()}, "match": mark, "times": 3}
    )
    status, _, _ = await ask(first, mark, f"say: now ; {mark}")
    assert status == 429
    status, headers, _ = await ask(second, mark, f"say: now ; {mark}")
    assert status == 200
    assert "idempotent-replayed" not in headers


async def test_a_bad_request_leaves_its_key_free(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    status, _, _ = await ask(replicas[0], mark, f"say: {mark}", temperature="hot")
    assert status == 400
    status, headers, _ = await ask(replicas[1], mark, f"say: {mark}")
    assert (status, "idempotent-replayed" in headers) == (200, False)


async def test_a_background_response_is_started_once_and_told_as_it_is(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    text = f"say: later ; {mark} ; fault:hold#{mark}"
    created = await first.client.responses.create(
        model=MODEL, input=text, background=True, extra_headers={"Idempotency-Key": mark}
    )
    again = await second.client.responses.create(
        model=MODEL, input=text, background=True, extra_headers={"Idempotency-Key": mark}
    )
    assert created.status == "queued"
    assert again.id == created.id
    assert again.status in ("queued", "in_progress")
    await until(lambda: upstream.requests(mark), "the provider is asked")
    upstream.release(mark)

    async def completed() -> bool:
        last = await second.client.responses.create(
            model=MODEL, input=text, background=True, extra_headers={"Idempotency-Key": mark}
        )
        return last.id == created.id and last.status == "completed"

    await found(completed, "the response is told as completed")
    assert len(upstream.requests(mark)) == 1


async def test_a_turn_in_a_conversation_is_taken_once(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    conversation = await first.client.conversations.create()
    text = f"say: aye ; {mark}"
    answers = await asyncio.gather(
        *(ask(replicas[n % 2], mark, text, conversation=conversation.id) for n in range(6))
    )
    assert len({body for _, _, body in answers}) == 1
    items = await second.client.conversations.items.list(conversation.id, order="asc")
    assert [item.type for item in items.data] == ["message", "message"]


async def test_another_project_s_key_is_another_key(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    secrets = []
    for name in ("a", "b"):
        body = {"name": name, "project": f"proj-{name}-{mark}"}
        async with first.http.post("/v1/keys", json=body) as answer:
            secrets.append((await answer.json())["key"])

    async def known() -> bool:
        auth = {"authorization": f"Bearer {secrets[1]}"}
        async with second.http.get("/v1/models", headers=auth) as answer:
            return answer.status == 200

    await found(known, "both replicas know the key")
    text = f"say: mine ; {mark}"
    bodies = {(await ask(second, mark, text, auth=secret))[2] for secret in secrets}
    assert len(bodies) == 2
    assert len(upstream.requests(mark)) == 2
    status, _, _ = await ask(first, mark, f"say: other ; {mark}", auth=secrets[0])
    assert status == 409


async def test_a_response_that_was_deleted_stays_deleted_for_its_key(
    replicas: Both, upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    created = await first.client.responses.create(
        model=MODEL, input=mark, extra_headers={"Idempotency-Key": mark}
    )
    await second.client.responses.delete(created.id)
    status, _, _ = await ask(first, mark, mark)
    assert status in (404, 409)
    assert len(upstream.requests(mark)) == 1


@pytest.mark.parametrize("key", ["x" * 256, "caf\u00e9"])
async def test_a_key_that_is_none_is_refused_by_name(
    replicas: Both, upstream: UpstreamProcess, key: str
) -> None:
    status, _, body = await ask(replicas[0], key, "say: hi")
    assert status == 400
    assert b'"param":"Idempotency-Key"' in body
