"""Which files a request names, and whether it may."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from contracts.principal import Principal
from contracts.responses import AttachedFile, ClaimCheck, RunResponseV1
from services.intake.errors import ApiError
from services.intake.files import RequestFiles, names_files
from tests.unit.intake.apps import Exchange, Intake

TEXT, IMAGE, GONE = (f"file-019b3f0c2a177c4e8b1d5a6f7e80910{n}" for n in range(3))
FOREIGN = "file-6F2ksmvXxt4VdoqmHRw6kL"


def kept(file_id: str, content_type: str) -> AttachedFile:
    claim = ClaimCheck(key=f"artifacts/ab/{file_id}", size_bytes=400, sha256="ab" * 32)
    return AttachedFile(file_id=file_id, filename="a", content_type=content_type, content=claim)


class Directory:
    """Knows two files of one project, and counts the questions."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    async def named(self, ids: Sequence[str], *, project: str) -> list[AttachedFile]:
        self.asked.append(ids)
        known = {TEXT: kept(TEXT, "text/plain"), IMAGE: kept(IMAGE, "image/png")}
        return [known[one] for one in ids if one in known and project in ("research", "default")]


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def files(directory: Directory) -> RequestFiles:
    return RequestFiles(directory, max_files=4, max_bytes=1000)


def file(file_id: str) -> dict[str, Any]:
    return {"type": "input_file", "file_id": file_id}


def image(file_id: str) -> dict[str, Any]:
    return {"type": "input_image", "file_id": file_id}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def command(**fields: Any) -> RunResponseV1:
    return RunResponseV1(
        response_id="resp_1",
        principal=Principal(project=fields.pop("project", "research"), key_id="key_1"),
        model="gpt-5",
        accepted_at=datetime(2027, 3, 1, tzinfo=UTC),
        events_partition=0,
        **fields,
    )


async def attached(
    files: RequestFiles,
    *items: dict[str, Any],
    history: list[dict[str, Any]] | None = None,
    tools: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> list[str] | None:
    body = orjson.dumps({"model": "gpt-5", "input": list(items), "tools": tools})
    before = None if history is None else orjson.dumps(history)
    found = (await files.attach(command(**fields), body, before)).files
    return None if found is None else [file.file_id for file in found]


@pytest.mark.parametrize(
    ("body", "history", "names"),
    [
        (b'{"input":"hi"}', None, False),
        (b'{"input":"hi"}', b"[]", False),
        (b'{"input":[{"file_id":"x"}]}', None, True),
        (b'{"input":"hi"}', b'[{"file_id":"x"}]', True),
    ],
)
def test_a_request_that_may_name_files_is_known_by_its_bytes(
    body: bytes, history: bytes | None, names: bool
) -> None:
    assert names_files(body, history) is names


async def test_files_are_found_wherever_an_item_may_name_them(
    files: RequestFiles, directory: Directory
) -> None:
    output = {"type": "function_call_output", "call_id": "a", "output": [file(TEXT)]}
    screen = {
        "type": "computer_call_output",
        "call_id": "b",
        "output": {"type": "computer_screenshot", "file_id": IMAGE},
    }

    assert await attached(files, message(file(TEXT))) == [TEXT]
    assert await attached(files, message(image(IMAGE))) == [IMAGE]
    assert await attached(files, output) == [TEXT]
    assert await attached(files, screen) == [IMAGE]
    mask = {"type": "image_generation", "input_image_mask": {"file_id": IMAGE}}
    assert await attached(files, tools=[mask]) == [IMAGE]
    assert await attached(files, message({"type": "input_text", "text": "file_id"})) is None
    assert len(directory.asked) == 5


async def test_all_files_of_request_and_history_are_asked_for_at_once(
    files: RequestFiles, directory: Directory
) -> None:
    found = await attached(files, message(file(TEXT)), history=[message(image(IMAGE))])

    assert found is not None
    assert set(found) == {TEXT, IMAGE}
    assert directory.asked == [sorted([TEXT, IMAGE])]


async def test_what_a_tool_found_is_not_a_file_of_the_input(
    files: RequestFiles, directory: Directory
) -> None:
    cited = {"type": "file_citation", "file_id": GONE, "index": 0, "filename": "a"}
    said = {"type": "output_text", "text": "a", "annotations": [cited]}

    assert await attached(files, history=[{"role": "assistant", "content": [said]}]) is None
    assert directory.asked == []


@pytest.mark.parametrize("file_id", [FOREIGN, "", "file-", TEXT.upper(), f"{TEXT}0"])
async def test_an_id_that_is_not_ours_is_left_alone(
    files: RequestFiles, directory: Directory, file_id: str
) -> None:
    assert await attached(files, message(file(file_id))) is None
    assert directory.asked == []


async def refusal(files: RequestFiles, *items: dict[str, Any], **more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await attached(files, *items, **more)
    return caught.value


async def test_a_file_that_is_not_there_is_named_with_its_place(files: RequestFiles) -> None:
    here = await refusal(files, message(file(TEXT)), message(file(TEXT), image(GONE)))
    before = await refusal(files, history=[message(file(GONE))], previous_response_id="resp_0")
    talk = await refusal(files, history=[message(file(GONE))], conversation_id="conv_0")
    foreign = await refusal(files, message(file(TEXT)), project="sales")

    assert (here.status, here.param) == (404, "input[1].content[1].file_id")
    assert here.message == f"Files [{GONE}] were not found."
    assert (before.status, before.param) == (404, "previous_response_id")
    assert (talk.status, talk.param) == (404, "conversation")
    assert (foreign.status, foreign.param) == (404, "input[0].content[0].file_id")


async def test_what_is_no_image_is_not_shown_as_one(files: RequestFiles) -> None:
    error = await refusal(files, message(image(TEXT)))

    assert (error.status, error.param) == (400, "input[0].content[0].file_id")


async def test_there_is_a_bound_on_the_files_of_one_request(files: RequestFiles) -> None:
    many = await refusal(files, message(*[file(TEXT)] * 5))
    large = await refusal(files, message(*[file(TEXT)] * 2), history=[message(image(IMAGE))])

    assert (many.status, many.code) == (400, "too_many_files")
    assert (large.status, large.code) == (400, "files_too_large")


async def test_items_for_a_conversation_are_judged_alike(files: RequestFiles) -> None:
    await files.check([message(file(TEXT), file(FOREIGN))], param="items", project="research")

    with pytest.raises(ApiError) as caught:
        await files.check([message(file(GONE))], param="items", project="research")
    assert caught.value.param == "items[0].content[0].file_id"


@pytest.mark.parametrize("given", ["text", [], [1], [{"content": 1}], [{"content": [[], "a"]}]])
async def test_input_of_any_shape_is_borne(files: RequestFiles, given: Any) -> None:
    body = orjson.dumps({"input": given, "tools": given})

    assert (await files.attach(command(), body, None)).files is None


async def test_a_command_carries_its_files_beside_the_request_as_it_was_written(
    files: RequestFiles, directory: Directory
) -> None:
    intake = Intake()
    intake.responses.files = files
    body = {"model": "gpt-5", "input": [message(file(TEXT))], "background": True}
    exchange = await Exchange(intake, orjson.dumps(body)).run()
    refused = await Exchange(intake, orjson.dumps({**body, "input": [message(file(GONE))]})).run()

    assert exchange.status == 200, exchange.body
    assert refused.status == 404
    assert refused.error["param"] == "input[0].content[0].file_id"
    command = intake.producer.command()
    assert len(intake.producer.messages) == 1
    assert command["request"] == body
    assert [one["file_id"] for one in command["files"]] == [TEXT]


async def test_nobody_is_asked_about_a_request_without_files(
    files: RequestFiles, directory: Directory
) -> None:
    intake = Intake()
    intake.responses.files = files
    body = {"model": "gpt-5", "input": "What is a file_id?", "background": True}
    await Exchange(intake, orjson.dumps(body)).run()

    assert directory.asked == []
    assert "files" not in intake.producer.command()
