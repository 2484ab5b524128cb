"""Files that clients upload: kept, listed, given to models of either dialect, and deleted."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types import FileObject
from openai.types.responses import Response

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess, samples

BOTH = pytest.mark.parametrize("dialect", ["responses", "chat"])
PDF = b"%PDF-1.7\n1 0 obj << >> endobj\ntrailer << >>\n%%EOF\n"


@asynccontextmanager
async def of_project(http: ClientSession, stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    """The official client with a new key of a project of its own."""
    project = f"project-{uuid4().hex[:8]}"
    async with http.post("/v1/keys", json={"name": "files", "project": project}) as answer:
        key = (await answer.json())["key"]
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1",
        api_key=key,
        max_retries=0,
        timeout=30,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def own(http: ClientSession, stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    """A client whose project has no files yet."""
    async with of_project(http, stack) as client:
        yield client


def asking(mark: str, *parts: dict[str, Any]) -> Any:
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": f"What? {mark}"}]}]


def told(upstream: UpstreamProcess, mark: str) -> str:
    """What the provider was asked, as text."""
    [request] = upstream.requests(mark)
    return str(request["body"])


async def given(client: AsyncOpenAI, response_id: str) -> list[dict[str, Any]]:
    """The parts of the one message that a response was given, as the API lists them."""
    [item] = (await client.responses.input_items.list(response_id)).data
    parts: list[dict[str, Any]] = item.to_dict()["content"]  # type: ignore[assignment]
    return parts


def data_url(content: bytes, content_type: str) -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


async def upload(client: AsyncOpenAI, name: str, content: bytes, **more: Any) -> FileObject:
    purpose = more.pop("purpose", "user_data")
    return await client.files.create(file=(name, content), purpose=purpose, **more)


async def test_a_file_is_kept_as_it_was_sent_until_it_is_deleted(own: AsyncOpenAI) -> None:
    content = "Grüße\n".encode() * 100
    file = await upload(own, "grüße an alle.txt", content)

    assert file.id.startswith("file-")
    assert (file.object, file.status, file.purpose) == ("file", "processed", "user_data")
    assert (file.bytes, file.filename) == (len(content), "grüße an alle.txt")
    assert file.expires_at is None
    assert await own.files.retrieve(file.id) == file
    assert (await own.files.content(file.id)).content == content

    deleted = await own.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    for gone in (own.files.retrieve, own.files.content, own.files.delete):
        with pytest.raises(NotFoundError) as caught:
            await gone(file.id)
        assert caught.value.param == "id"
        assert caught.value.message.endswith(f"No such File object: {file.id}")
    assert (await own.files.list()).data == []


async def test_a_large_file_passes_through_in_pieces(own: AsyncOpenAI) -> None:
    content = os.urandom(17 * 1024 * 1024 + 1)
    first, second = [await upload(own, "big.bin", content) for _ in range(2)]

    await own.files.delete(first.id)
    assert (await own.files.content(second.id)).content == content


async def test_files_are_listed_in_pages_and_by_purpose(own: AsyncOpenAI) -> None:
    purposes = ["user_data", "assistants", "vision", "user_data", "fine-tune"]
    files = [
        await upload(own, f"{number}.txt", b"text", purpose=purpose)
        for number, purpose in enumerate(purposes)
    ]
    ids = [file.id for file in files]

    assert [file.id async for file in own.files.list(limit=2)] == ids[::-1]
    assert [file.id async for file in own.files.list(limit=2, order="asc")] == ids
    listed = await own.files.list(purpose="user_data")
    assert [file.id for file in listed.data] == [ids[3], ids[0]]
    assert listed.has_more is False
    rest = await own.files.list(after=ids[1], order="asc")
    assert [file.id for file in rest.data] == ids[2:]


async def test_a_file_says_when_its_time_is_over(own: AsyncOpenAI) -> None:
    kept = await upload(own, "a.txt", b"a", expires_after={"anchor": "created_at", "seconds": 3600})
    batch = await upload(own, "a.jsonl", b"{}", purpose="batch")

    assert kept.expires_at == kept.created_at + 3600
    assert batch.expires_at == batch.created_at + 30 * 86_400


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"purpose": "party"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
async def test_an_upload_with_a_wrong_field_is_refused_by_name(
    own: AsyncOpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await upload(own, "a.txt", b"text", **more)

    assert caught.value.param == param
    assert (await own.files.list()).data == []


@BOTH
async def test_a_text_file_is_given_to_the_model(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str, dialect: str
) -> None:
    file = await upload(own, "notes.txt", b"The capital is Paris.")
    response = await own.responses.create(
        model=DIALECTS[dialect], input=asking(mark, {"type": "input_file", "file_id": file.id})
    )

    asked = told(upstream, mark)
    assert response.status == "completed"
    assert file.id not in asked
    assert "notes.txt" in asked
    expected = {
        "responses": data_url(b"The capital is Paris.", "text/plain"),
        "chat": "The capital is Paris.",
    }
    assert expected[dialect] in asked

    [part, _] = await given(own, response.id)
    assert part == {"type": "input_file", "file_id": file.id}


@BOTH
async def test_an_image_and_a_pdf_are_given_to_the_model(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str, dialect: str
) -> None:
    png = samples.png(mark)
    image, pdf = await upload(own, "a.png", png), await upload(own, "a.pdf", PDF)
    async with own.responses.stream(
        model=DIALECTS[dialect],
        input=asking(
            mark,
            {"type": "input_image", "file_id": image.id, "detail": "low"},
            {"type": "input_file", "file_id": pdf.id},
        ),
    ) as stream:
        response = await stream.get_final_response()

    asked = told(upstream, mark)
    assert response.status == "completed"
    assert data_url(png, "image/png") in asked
    assert data_url(PDF, "application/pdf") in asked
    assert "file-" not in asked
    named = [part.get("file_id") for part in await given(own, response.id)]
    assert named == [image.id, pdf.id, None]


async def test_a_file_above_the_size_of_a_message_is_given_to_the_model(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    content = f"{mark} ".encode() * 100_000
    file = await upload(own, "long.txt", content)
    response = await own.responses.create(
        model=DIALECTS["chat"],
        input=[
            {"role": "user", "content": [{"type": "input_file", "file_id": file.id}]},
            {"role": "user", "content": "say: read"},
        ],
        store=False,
    )

    assert response.status == "completed"
    assert content.decode() in told(upstream, mark)


@BOTH
async def test_a_later_turn_looks_the_file_up_again(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str, dialect: str
) -> None:
    model, other = DIALECTS[dialect], f"other{mark}"
    file = await upload(own, "notes.txt", b"The capital is Paris.")
    first = await own.responses.create(
        model=model, input=asking("first", {"type": "input_file", "file_id": file.id})
    )
    await own.responses.create(model=model, input=mark, previous_response_id=first.id)
    assert "notes.txt" in told(upstream, mark)

    await own.files.delete(file.id)
    with pytest.raises(NotFoundError, match=f"Files \\[{file.id}\\] were not found") as caught:
        await own.responses.create(model=model, input=other, previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"
    assert upstream.requests(other) == []


async def test_items_of_a_conversation_may_name_files(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    file = await upload(own, "notes.txt", b"The capital is Paris.")
    items = asking("first", {"type": "input_file", "file_id": file.id})
    conversation = await own.conversations.create(items=items)
    await own.responses.create(
        model=DIALECTS["responses"], conversation=conversation.id, input=mark
    )
    assert data_url(b"The capital is Paris.", "text/plain") in told(upstream, mark)

    await own.files.delete(file.id)
    with pytest.raises(NotFoundError) as caught:
        await own.conversations.items.create(conversation.id, items=items)
    assert caught.value.param == "items[0].content[0].file_id"


async def test_files_of_another_project_do_not_exist(
    own: AsyncOpenAI, http: ClientSession, stack: Stack, client: AsyncOpenAI
) -> None:
    file = await upload(own, "secret.txt", b"secret")
    part = {"type": "input_file", "file_id": file.id}
    async with of_project(http, stack) as stranger:
        for other in (stranger, client):
            for reading in (other.files.retrieve, other.files.content, other.files.delete):
                with pytest.raises(NotFoundError):
                    await reading(file.id)
            with pytest.raises(NotFoundError) as caught:
                await other.responses.create(
                    model=DIALECTS["responses"],
                    input=asking("x", {"type": "input_text", "text": "a"}, part),
                )
            assert caught.value.param == "input[0].content[1].file_id"
        assert (await stranger.files.list()).data == []
    assert (await own.files.content(file.id)).content == b"secret"


async def test_a_file_that_is_no_image_is_refused_as_one(own: AsyncOpenAI) -> None:
    file = await upload(own, "a.png", b"only text")
    with pytest.raises(BadRequestError, match="text/plain") as caught:
        await own.responses.create(
            model=DIALECTS["chat"], input=asking("x", {"type": "input_image", "file_id": file.id})
        )
    assert caught.value.param == "input[0].content[0].file_id"


async def test_the_id_of_a_file_at_the_provider_passes_through(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    part = {"type": "input_file", "file_id": "file-6F2ksmvXxt4VdoqmHRw6kL"}
    await own.responses.create(model=DIALECTS["responses"], input=asking(mark, part))
    assert "file-6F2ksmvXxt4VdoqmHRw6kL" in told(upstream, mark)

    with pytest.raises(BadRequestError) as caught:
        await own.responses.create(model=DIALECTS["chat"], input=asking(mark, part))
    assert caught.value.param == "input[0].content[0].file_id"


async def test_a_file_that_is_deleted_before_its_response_runs_fails_it_by_name(
    own: AsyncOpenAI, stack: Stack, upstream: UpstreamProcess, mark: str
) -> None:
    file = await upload(own, "notes.txt", f"The capital is {mark}.".encode())
    with stack.paused("worker"):
        response = await own.responses.create(
            model=DIALECTS["responses"],
            input=asking(mark, {"type": "input_file", "file_id": file.id}),
            background=True,
        )
        await own.files.delete(file.id)

    async def ended() -> Response | None:
        now = await own.responses.retrieve(response.id)
        return now if now.status not in ("queued", "in_progress") else None

    failed = await found(ended, "the response has ended")
    assert failed.status == "failed"
    assert failed.error is not None
    assert file.id in failed.error.message
    assert upstream.requests(mark) == []


@BOTH
async def test_the_tokens_of_a_file_are_counted(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str, dialect: str
) -> None:
    file = await upload(own, "notes.txt", b"The capital is Paris.")
    parts = asking(mark, {"type": "input_file", "file_id": file.id})
    counted = await own.responses.input_tokens.count(model=DIALECTS[dialect], input=parts)

    assert counted.input_tokens > 0
    assert "notes.txt" in told(upstream, mark)


@BOTH
async def test_a_file_may_come_with_its_data_or_by_its_url(
    own: AsyncOpenAI, upstream: UpstreamProcess, mark: str, dialect: str
) -> None:
    model, other = DIALECTS[dialect], f"other{mark}"
    data = {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": data_url(PDF, "application/pdf"),
    }
    await own.responses.create(model=model, input=asking(mark, data))
    assert data["file_data"] in told(upstream, mark)

    url = {"type": "input_file", "file_url": "https://example.com/a.pdf"}
    if dialect == "responses":
        await own.responses.create(model=model, input=asking(other, url))
        assert "https://example.com/a.pdf" in told(upstream, other)
    else:
        with pytest.raises(BadRequestError) as caught:
            await own.responses.create(model=model, input=asking(other, url))
        assert caught.value.param == "input[0].content[0].file_url"
