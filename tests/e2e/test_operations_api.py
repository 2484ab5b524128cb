"""Counting tokens and compacting conversations, before both kinds of providers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError

from contracts.topics import COSTS_RECORDED
from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import until
from tests.upstream import UpstreamProcess

NATIVE, CHAT = DIALECTS["responses"], DIALECTS["chat"]
BOTH = [NATIVE, CHAT]
REAL = DIALECTS["local"]


@pytest.mark.parametrize("model", BOTH)
async def test_input_tokens_are_what_the_provider_counts(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str, mark: str
) -> None:
    text = f"one two three {mark}"
    created = await client.responses.create(model=model, input=text, instructions="be brief")
    assert created.usage is not None

    counted = await client.responses.input_tokens.count(
        model=model, input=text, instructions="be brief"
    )

    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == created.usage.input_tokens == 6
    last = upstream.requests(mark)[-1]
    if model == NATIVE:
        assert last["path"] == "/v1/responses/input_tokens"
        assert last["headers"]["user-agent"].startswith("AsyncOpenAI/")
        assert last["body"] == {"model": model, "input": text, "instructions": "be brief"}
    else:
        assert last["path"] == "/v1/chat/completions"
        assert last["body"]["max_completion_tokens"] == 1


async def test_a_real_model_counts_its_template_too(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=REAL, input="What is the capital of France?")
    assert created.usage is not None

    counted = await client.responses.input_tokens.count(
        model=REAL, input="What is the capital of France?"
    )

    assert counted.input_tokens == created.usage.input_tokens > 7


@pytest.mark.parametrize("model", BOTH)
async def test_tokens_of_what_was_said_before_are_counted_too(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    first = await client.responses.create(model=model, input="one two")
    counted = await client.responses.input_tokens.count(
        model=model, previous_response_id=first.id, input="four"
    )
    # The answer was `echo: one two`.
    assert counted.input_tokens == 2 + 3 + 1

    conversation = await client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "one two three"}]
    )
    for _ in range(2):  # It takes no turn: the conversation is not locked.
        counted = await client.responses.input_tokens.count(
            model=model, conversation=conversation.id, input="four"
        )
        assert counted.input_tokens == 4


async def test_a_count_leaves_no_costs_but_where_a_token_was_bought(
    client: AsyncOpenAI, http: ClientSession, topics: Topics, mark: str
) -> None:
    async with http.post("/v1/keys", json={"name": mark}) as created:
        key = await created.json()
    begin = await topics.ends(COSTS_RECORDED.name)
    mine = client.with_options(api_key=key["key"])
    await mine.responses.input_tokens.count(model=NATIVE, input="free of charge")
    await mine.responses.input_tokens.count(model=CHAT, input="one two")

    lines = await topics.facts(
        COSTS_RECORDED.name, begin, lambda line: line.principal.key_id == key["id"], count=2
    )

    assert {(line.model, line.unit, line.quantity) for line in lines} == {
        (CHAT, "input_tokens", 2),
        (CHAT, "output_tokens", 1),
    }


async def test_a_native_provider_compacts_by_itself(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    begin = await topics.ends(COSTS_RECORDED.name)
    first = await client.responses.create(model=NATIVE, input=f"my cat is called {mark}")

    # Its user messages are no items that the client's strict types know.
    answer = await client.responses.with_raw_response.compact(
        model=NATIVE, previous_response_id=first.id
    )
    compacted: dict[str, Any] = answer.http_response.json()

    assert compacted["object"] == "response.compaction"
    assert compacted["id"].startswith("resp_")
    assert [item["type"] for item in compacted["output"]] == ["message", "compaction"]
    lines = await topics.facts(
        COSTS_RECORDED.name, begin, lambda fact: fact.response_id == compacted["id"], count=2
    )
    used = {line.unit: line.quantity for line in lines}
    assert used["input_tokens"] == compacted["usage"]["input_tokens"]
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(compacted["id"])

    again: Any = [*compacted["output"], {"role": "user", "content": "and now?"}]
    await client.responses.create(model=NATIVE, input=again)
    assert upstream.requests(mark)[-1]["body"]["input"] == again


@pytest.mark.parametrize("reader", BOTH)
async def test_what_a_chat_model_summarised_is_known_to_any_model_afterwards(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str, reader: str
) -> None:
    begin = await topics.ends(COSTS_RECORDED.name)
    first = await client.responses.create(model=CHAT, input=f"my cat is called {mark}")
    upstream.enqueue(f"say: the cat is {mark}")
    answer = await client.responses.with_raw_response.compact(
        model=CHAT, previous_response_id=first.id, instructions="write in English"
    )
    compacted: dict[str, Any] = answer.http_response.json()

    assert mark not in compacted["output"][-1]["encrypted_content"]
    assert compacted["usage"]["output_tokens"] == 4
    await topics.facts(
        COSTS_RECORDED.name, begin, lambda fact: fact.response_id == compacted["id"], count=2
    )
    asked = upstream.requests(mark)[-1]["body"]["messages"]
    assert asked[0] == {"role": "system", "content": "write in English"}
    assert [message["role"] for message in asked[1:]] == ["user", "assistant", "user"]

    question: Any = {"role": "user", "content": "script:recall"}
    told = await client.responses.create(model=reader, input=[*compacted["output"], question])
    assert told.output_text == (
        f"my cat is called {mark}|"
        f"Summary of the conversation before this point:\n\nthe cat is {mark}"
    )


async def test_a_compaction_of_another_provider_is_refused_rather_than_forgotten(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    item: Any = {"type": "compaction", "encrypted_content": "gAAAAAB-foreign"}
    with pytest.raises(BadRequestError) as refusal:
        await client.responses.create(model=CHAT, input=[{"role": "user", "content": "hi"}, item])
    assert refusal.value.param == "input[1].encrypted_content"


async def test_what_a_chat_model_thought_goes_out_sealed_and_comes_back_in_words(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    tool: Any = {"type": "function", "name": "f", "parameters": {}, "strict": False}
    asked: Any = [{"role": "user", "content": f"script:reasoning ; {mark}"}]
    answer = await client.responses.create(
        model=CHAT, input=asked, store=False, include=["reasoning.encrypted_content"], tools=[tool]
    )
    thought = answer.output[0]
    assert thought.type == "reasoning"
    assert thought.encrypted_content is not None
    assert thought.content is not None
    kept: Any = {
        "type": "reasoning",
        "id": thought.id,
        "summary": [],
        "encrypted_content": thought.encrypted_content,
    }
    call: Any = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    output: Any = {"type": "function_call_output", "call_id": "a", "output": mark}

    await client.responses.create(model=CHAT, input=[*asked, kept, call, output], store=False)

    told = upstream.requests(mark)[-1]["body"]["messages"][1]
    assert told["reasoning_content"] == thought.content[0].text
    forged: Any = {**kept, "encrypted_content": kept["encrypted_content"][:-8] + "AAAAAAA="}
    with pytest.raises(BadRequestError) as refusal:
        await client.responses.create(model=CHAT, input=[*asked, forged, call, output])
    assert refusal.value.code == "invalid_encrypted_content"


async def test_what_a_native_model_encrypted_passes_both_ways(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    asked: Any = [{"role": "user", "content": f"script:reasoning_encrypted ; {mark}"}]
    answer = await client.responses.create(
        model=NATIVE, input=asked, store=False, include=["reasoning.encrypted_content"]
    )
    thought = answer.output[0].model_dump(exclude_unset=True)
    assert thought["encrypted_content"] == "gAAAAAB-scripted"

    again: Any = [*asked, thought, {"role": "user", "content": "go on"}]
    await client.responses.create(model=NATIVE, input=again, store=False)

    assert upstream.requests(mark)[-1]["body"]["input"][1] == thought


FAULTS = [("400", 400), ("401", 502), ("429", 429), ("503", 503), ("504", 502)]


@pytest.mark.parametrize("operation", ["input_tokens", "compact"])
@pytest.mark.parametrize(("fault", "status"), FAULTS)
async def test_a_provider_that_fails_is_explained_as_for_responses(
    http: ClientSession, upstream: UpstreamProcess, operation: str, fault: str, status: int
) -> None:
    body = {"model": NATIVE, "input": f"fault:{fault}"}
    async with http.post(f"/v1/responses/{operation}", json=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]


async def test_a_provider_that_fails_once_is_asked_again(
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    mark: str,
    requests: Callable[[], int],
) -> None:
    counted = await client.responses.input_tokens.count(
        model=NATIVE, input=f"fault:503x1#{mark} ; say: {mark}"
    )
    assert counted.input_tokens > 0
    assert requests() == 2


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("input_tokens", {"input": "x"}, "model", "missing_required_parameter"),
    ("input_tokens", {"model": "gpt-x", "input": 1}, "input", "invalid_type"),
    ("input_tokens", {"model": "nobody's"}, "model", "model_not_found"),
    ("input_tokens", {"model": "gpt-x", "truncation": "some"}, "truncation", "invalid_value"),
    (
        "input_tokens",
        {"model": "gpt-x", "previous_response_id": "resp_x", "conversation": "conv_x"},
        "conversation",
        "mutually_exclusive_parameters",
    ),
    (
        "compact",
        {"model": "gpt-x", "previous_response_id": "resp_x"},
        "previous_response_id",
        "previous_response_not_found",
    ),
    ("compact", {"model": "gpt-x"}, "input", "missing_required_parameter"),
    (
        "compact",
        {"model": "gpt-x", "input": "x", "instructions": 1},
        "instructions",
        "invalid_type",
    ),
]


@pytest.mark.parametrize(("operation", "body", "param", "code"), WRONG)
async def test_bad_input_is_explained(
    http: ClientSession, operation: str, body: dict[str, Any], param: str, code: str
) -> None:
    async with http.post(f"/v1/responses/{operation}", json=body) as answer:
        assert answer.status in (400, 404)
        error = (await answer.json())["error"]
    assert (error["param"], error["code"]) == (param, code)


async def test_operations_need_a_key(stack: Stack, upstream: UpstreamProcess) -> None:
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="sk-none", max_retries=0) as nobody:
        with pytest.raises(APIStatusError) as refusal:
            await nobody.responses.input_tokens.count(model=NATIVE, input="x")
    assert refusal.value.status_code == 401


@pytest.mark.parametrize("operation", ["input_tokens", "compact"])
async def test_an_operation_outlives_its_worker(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str, operation: str
) -> None:
    async def asked() -> dict[str, Any]:
        body = {"model": NATIVE, "input": f"say: {mark} ; fault:hold#{mark}"}
        async with http.post(f"/v1/responses/{operation}", json=body) as answer:
            assert answer.status == 200
            told: dict[str, Any] = await answer.json()
            return told

    answer = asyncio.create_task(asked())
    await until(lambda: len(upstream.requests(mark)) == 1, "the provider has the request")
    killed = stack.kill("worker")
    await stack.ready_again("worker", after=killed)
    upstream.release(mark)

    assert (await answer)["object"] == f"response.{operation}".replace("compact", "compaction")
    # Once before the end of the first worker, which no answer reached, and once after.
    assert [request["finished"] for request in upstream.requests(mark)] == [False, True]
