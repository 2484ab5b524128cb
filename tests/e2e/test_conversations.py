"""Conversations and input items through the official client, which checks every answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.conversations import ConversationItemList
from openai.types.conversations.message import Message
from openai.types.responses import ResponseCompletedEvent, ResponseInputItemParam, ResponseItemList

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
SCRIPTED = [MODEL, DIALECTS["chat"]]
NOBODY = "conv_" + "0" * 32
NOWHERE = "resp_019ab3e00011700080000000000000ff"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def said(client: AsyncOpenAI, conversation_id: str) -> list[str]:
    """The texts of a conversation, oldest first, whatever the pages."""
    items = client.conversations.items.list(conversation_id, order="asc", limit=3)
    return [
        getattr(item.content[0], "text", "") async for item in items if isinstance(item, Message)
    ]


async def settled(client: AsyncOpenAI, conversation_id: str, count: int) -> list[str]:
    async def enough() -> list[str] | None:
        texts = await said(client, conversation_id)
        return texts if len(texts) >= count else None

    return await found(enough, f"{count} items in the conversation")


@pytest.mark.parametrize("model", SCRIPTED)
async def test_each_response_sees_all_that_was_said_in_its_conversation(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    opening: list[ResponseInputItemParam] = [
        {"role": "user", "content": "begin"},
        {"type": "message", "role": "assistant", "content": "begun"},
    ]
    conversation = await client.conversations.create(items=opening)
    for word in ("one", "two", "three"):
        spoken = await client.responses.create(
            model=model, input=f"say: {word}", conversation=conversation.id
        )
        assert spoken.conversation is not None
        assert spoken.conversation.id == conversation.id
    recalled = await client.responses.create(
        model=model, input="script:recall", conversation={"id": conversation.id}
    )
    whole = "begin|begun|say: one|one|say: two|two|say: three|three"
    assert recalled.output_text == whole
    assert await said(client, conversation.id) == [*whole.split("|"), "script:recall", whole]


async def test_streams_and_background_responses_speak_in_turn(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    conversation = await client.conversations.create()
    stream = await client.responses.create(
        model=MODEL, input="say: one", conversation=conversation.id, stream=True
    )
    events = [event async for event in stream]
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert events[-1].response.conversation is not None
    queued = await client.responses.create(
        model=MODEL, input="say: two", conversation=conversation.id, background=True
    )
    assert queued.conversation is not None
    assert queued.conversation.id == conversation.id
    # It waits for the one in the background, whose end nobody has read.
    third = await client.responses.create(
        model=MODEL, input="script:recall", conversation=conversation.id, store=False
    )
    assert third.output_text == "say: one|one|say: two|two"
    assert len(await settled(client, conversation.id, 6)) == 6


async def test_a_tool_call_and_its_output_stay_in_the_conversation(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    conversation = await client.conversations.create()
    first = await client.responses.create(
        model=MODEL,
        input='call: weather {"city": "Paris"}',
        conversation=conversation.id,
        tools=[WEATHER],
    )
    call = next(item for item in first.output if item.type == "function_call")
    second = await client.responses.create(
        model=MODEL,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}],
        conversation=conversation.id,
        tools=[WEATHER],
    )
    assert "sun" in second.output_text
    given = await client.responses.input_items.list(second.id, order="asc")
    kinds = [item.type for item in given.data]
    assert kinds == ["message", "function_call", "function_call_output"]
    assert all(item.id for item in given.data)


async def test_a_second_response_is_refused_while_one_runs(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    conversation = await client.conversations.create()
    running = asyncio.create_task(
        client.responses.create(
            model=MODEL, input=f"say: slow ; fault:hold#{mark}", conversation=conversation.id
        )
    )

    async def refusal() -> APIStatusError | None:
        try:
            await client.responses.create(
                model=MODEL, input="say: fast", conversation=conversation.id
            )
        except BadRequestError as error:
            return error
        return None

    async def arrived() -> bool:
        return bool(upstream.requests(mark))

    await found(arrived, "the first request is at the provider")
    refused = await refusal()
    assert refused is not None
    assert (refused.code, refused.param) == ("conversation_locked", "conversation")
    upstream.release(mark)
    await running
    assert await refusal() is None
    assert (await settled(client, conversation.id, 4))[1::2] == ["slow", "fast"]


async def test_a_failed_response_leaves_its_conversation_open_and_unchanged(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    conversation = await client.conversations.create()
    with pytest.raises(BadRequestError):
        await client.responses.create(model=MODEL, input="fault:400", conversation=conversation.id)
    await client.responses.create(model=MODEL, input="say: fine", conversation=conversation.id)
    assert await settled(client, conversation.id, 2) == ["say: fine", "fine"]


async def test_a_chain_may_leave_a_conversation_with_all_that_was_said_there(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    conversation = await client.conversations.create()
    for word in ("one", "two"):
        spoken = await client.responses.create(
            model=MODEL, input=f"say: {word}", conversation=conversation.id
        )
    branch = await client.responses.create(
        model=MODEL, input="script:recall", previous_response_id=spoken.id
    )
    assert branch.output_text == "say: one|one|say: two|two"
    assert branch.conversation is None
    given = await client.responses.input_items.list(branch.id, order="asc")
    assert len(given.data) == 5


async def test_input_items_are_those_of_the_chain_in_pages(
    client: AsyncOpenAI, upstream: UpstreamProcess, http: ClientSession
) -> None:
    first = await client.responses.create(model=MODEL, input="say: one")
    brief: Any = {"role": "developer", "content": "be brief", "id": "msg_mine"}
    picture: ResponseInputItemParam = {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "say: two"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        ],
    }
    second = await client.responses.create(
        model=MODEL,
        input=[brief, picture],
        previous_response_id=first.id,
        instructions="not an item",
    )
    pages = client.responses.input_items.list(second.id, limit=1)
    newest_first = [item async for item in pages]
    whole = await client.responses.input_items.list(second.id, order="asc")
    assert newest_first == whole.data[::-1]
    assert [getattr(item, "role", None) for item in whole.data] == [
        "user", "assistant", "developer", "user"
    ]  # fmt: skip
    assert whole.data[1].id == first.output[0].id
    assert whole.data[2].id == "msg_mine"

    path = f"/v1/responses/{second.id}/input_items"
    async with http.get(path, params={"limit": "2"}) as answer:
        document = await answer.json()
    ResponseItemList.model_validate(document, strict=True)
    assert document["has_more"] is True
    assert "image_url" not in document["data"][0]["content"][1]
    include = {"include": "message.input_image.image_url", "limit": "1"}
    async with http.get(path, params=include) as answer:
        shown = (await answer.json())["data"][0]
    assert shown["content"][1]["image_url"] == "data:image/png;base64,AAAA"


async def test_owners_change_conversations_and_their_items(
    client: AsyncOpenAI, upstream: UpstreamProcess, http: ClientSession
) -> None:
    conversation = await client.conversations.create(metadata={"topic": "a"})
    assert conversation.metadata == {"topic": "a"}
    changed = await client.conversations.update(conversation.id, metadata={"topic": "b"})
    assert changed.metadata == {"topic": "b"}
    assert await client.conversations.retrieve(conversation.id) == changed
    async with http.get(f"/v1/conversations/{conversation.id}/items") as answer:
        ConversationItemList.model_validate(await answer.json(), strict=True)

    added = await client.conversations.items.create(
        conversation.id,
        items=[{"role": "user", "content": word} for word in ("red", "green", "blue")],
    )
    assert len(added.data) == 3
    green = added.data[1]
    assert (
        await client.conversations.items.retrieve(str(green.id), conversation_id=conversation.id)
        == green
    )
    left = await client.conversations.items.delete(str(green.id), conversation_id=conversation.id)
    assert left.id == conversation.id
    recalled = await client.responses.create(
        model=MODEL, input="script:recall", conversation=conversation.id
    )
    assert recalled.output_text == "red|blue"

    deleted = await client.conversations.delete(conversation.id)
    assert (deleted.id, deleted.deleted) == (conversation.id, True)
    with pytest.raises(NotFoundError):
        await client.conversations.retrieve(conversation.id)
    with pytest.raises(NotFoundError):
        await client.responses.create(model=MODEL, input="x", conversation=conversation.id)
    assert (await client.responses.retrieve(recalled.id)).output_text == "red|blue"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/conversations", [], 400),
        ("POST", "/v1/conversations", {"items": [{"type": "song"}]}, 400),
        ("POST", f"/v1/conversations/{NOBODY}", {"metadata": {}}, 404),
        ("GET", "/v1/conversations/%00", None, 404),
        ("GET", f"/v1/conversations/{NOBODY}/items", None, 404),
        ("GET", f"/v1/conversations/{NOBODY}/items?limit=0", None, 400),
        ("DELETE", f"/v1/conversations/{NOBODY}/items/msg_1", None, 404),
        ("DELETE", f"/v1/conversations/{NOBODY}", None, 404),
        ("GET", f"/v1/responses/{NOWHERE}/input_items", None, 404),
        ("GET", f"/v1/responses/{NOWHERE}/input_items?order=up", None, 400),
        ("PUT", f"/v1/conversations/{NOBODY}", {}, 405),
    ],
)
async def test_refusals_have_the_status_and_shape_of_the_api(
    http: ClientSession, method: str, path: str, body: object, status: int
) -> None:
    async with http.request(method, path, json=body) as answer:
        assert answer.status == status
        assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


async def test_a_conversation_and_a_previous_response_are_refused_together(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    with pytest.raises(BadRequestError) as refused:
        await client.responses.create(
            model=MODEL, input="x", conversation=NOBODY, previous_response_id=NOWHERE
        )
    assert refused.value.code == "mutually_exclusive_parameters"


async def test_the_key_of_another_project_finds_nothing(
    client: AsyncOpenAI, upstream: UpstreamProcess, http: ClientSession, stack: Stack, mark: str
) -> None:
    async with http.post("/v1/keys", json={"name": mark, "project": mark}) as answer:
        secret = (await answer.json())["key"]
    conversation = await client.conversations.create(items=[{"role": "user", "content": "x"}])
    item = (await client.conversations.items.list(conversation.id)).data[0]
    spoken = await client.responses.create(
        model=MODEL, input="say: x", conversation=conversation.id
    )
    one = f"/v1/conversations/{conversation.id}"
    create = {"model": MODEL, "input": "x", "conversation": conversation.id}
    headers = {"authorization": f"Bearer {secret}"}
    async with ClientSession(stack.url, headers=headers) as stranger:
        for method, path, body in (
            ("GET", one, None),
            ("POST", one, {"metadata": {}}),
            ("DELETE", one, None),
            ("GET", one + "/items", None),
            ("POST", one + "/items", {"items": [{"role": "user", "content": "x"}]}),
            ("GET", f"{one}/items/{item.id}", None),
            ("DELETE", f"{one}/items/{item.id}", None),
            ("GET", f"/v1/responses/{spoken.id}/input_items", None),
            ("POST", "/v1/responses", create),
        ):
            async with stranger.request(method, path, json=body) as answer:
                assert answer.status == 404, (method, path)
    assert len(await settled(client, conversation.id, 3)) == 3
