"""The Responses API through the official client, in front of every kind of provider."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

from tests.e2e.parts import DIALECTS
from tests.upstream import UpstreamProcess

SCRIPTED = [DIALECTS["responses"], DIALECTS["chat"]]
ALL = list(DIALECTS.values())
REAL = DIALECTS["local"]


async def answer(client: AsyncOpenAI, model: str, text: str, after: str | None = None) -> Response:
    return await client.responses.create(model=model, input=text, previous_response_id=after)


@pytest.mark.parametrize("model", SCRIPTED)
async def test_a_created_response_is_complete_and_is_retrieved_as_it_was(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    created = await answer(client, model, "say: hello world")

    assert created.id.startswith("resp_")
    assert (created.status, created.model) == ("completed", model)
    assert created.output_text == "hello world"
    assert created.usage is not None
    assert created.usage.total_tokens == created.usage.input_tokens + created.usage.output_tokens
    assert await client.responses.retrieve(created.id) == created


@pytest.mark.parametrize("model", ALL)
async def test_a_stream_tells_the_response_that_is_stored(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    events = [
        event
        async for event in await client.responses.create(
            model=model, input="What is the capital of France?", stream=True
        )
    ]

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(deltas) == last.response.output_text != ""
    assert await client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("model", ALL)
def test_code_that_is_not_async_gets_answers_and_streams_too(
    blocking_client: OpenAI, upstream_process: UpstreamProcess, model: str
) -> None:
    question = "What is the capital of France?"
    created = blocking_client.responses.create(model=model, input=question)
    assert created.status == "completed"
    assert created.output_text
    with blocking_client.responses.stream(model=model, input=question) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text
    assert blocking_client.responses.retrieve(final.id).output_text == final.output_text
    blocking_client.responses.delete(final.id)
    with pytest.raises(NotFoundError):
        blocking_client.responses.retrieve(final.id)


async def test_the_real_model_knows_the_capital_of_france(client: AsyncOpenAI) -> None:
    created = await answer(client, REAL, "What is the capital of France?")
    assert "Paris" in created.output_text
    assert created.usage is not None
    assert created.usage.output_tokens > 0


@pytest.mark.parametrize("model", SCRIPTED)
async def test_a_chain_carries_everything_said_before(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    first = await answer(client, model, "say: one")
    second = await answer(client, model, "say: two", first.id)
    third = await answer(client, model, "script:recall", second.id)

    assert third.output_text == "say: one|one|say: two|two"
    assert third.previous_response_id == second.id
    assert second.previous_response_id == first.id


@pytest.mark.parametrize("model", SCRIPTED)
async def test_two_branches_of_a_chain_do_not_see_each_other(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    trunk = await answer(client, model, "say: trunk")
    left = await answer(client, model, "say: left", trunk.id)
    right = await answer(client, model, "say: right", trunk.id)

    assert (await answer(client, model, "script:recall", left.id)).output_text == (
        "say: trunk|trunk|say: left|left"
    )
    assert (await answer(client, model, "script:recall", right.id)).output_text == (
        "say: trunk|trunk|say: right|right"
    )


async def test_a_chain_goes_on_with_another_provider(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    first = await answer(client, DIALECTS["responses"], "say: from responses")
    second = await answer(client, DIALECTS["chat"], "say: from chat", first.id)
    third = await answer(client, DIALECTS["responses"], "script:recall", second.id)
    assert third.output_text == ("say: from responses|from responses|say: from chat|from chat")


async def test_instructions_hold_for_one_response_only(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    model = DIALECTS["responses"]
    first = await client.responses.create(
        model=model, input="script:instructions", instructions="Be brief."
    )
    second = await answer(client, model, "script:instructions", first.id)
    assert (first.output_text, second.output_text) == ("Be brief.", "")


@pytest.mark.parametrize("model", SCRIPTED)
async def test_usage_is_what_the_provider_counted(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    wanted = (
        '{"input_tokens": 90, "cached_tokens": 40, "output_tokens": 30, "reasoning_tokens": 10}'
    )
    usage = (await answer(client, model, f"say: counted ; usage: {wanted}")).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (90, 30, 120)
    assert usage.input_tokens_details.cached_tokens == 40
    assert usage.output_tokens_details.reasoning_tokens == 10


@pytest.mark.parametrize("model", SCRIPTED)
async def test_a_client_runs_its_own_tools_over_two_responses(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    first = await client.responses.create(
        model=model,
        input='call: get_weather {"city": "Paris"}',
        tools=[
            {
                "type": "function",
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": False,
            }
        ],
    )
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.arguments == '{"city": "Paris"}'

    second = await client.responses.create(
        model=model,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
    )
    assert second.output_text == "get_weather -> sunny"


@pytest.mark.parametrize("model", ALL)
async def test_a_deleted_response_is_gone_for_every_use(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    created = await answer(client, model, "say: delete me")
    await client.responses.delete(created.id)

    with pytest.raises(NotFoundError):
        await client.responses.retrieve(created.id)
    with pytest.raises(NotFoundError):
        await client.responses.delete(created.id)


async def test_the_models_that_are_configured_are_listed_and_found(client: AsyncOpenAI) -> None:
    listed = {model.id async for model in client.models.list()}
    assert listed >= set(ALL)
    for model in ALL:
        assert (await client.models.retrieve(model)).id == model
    with pytest.raises(NotFoundError):
        await client.models.retrieve("no-such-model")
