"""Files that items name, as providers get them."""

from __future__ import annotations

import base64
import copy
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.principal import Principal
from contracts.responses import AttachedFile, ClaimCheck, RunResponseV1
from services.kit.blobs.disk import DiskBlobs
from services.kit.claimcheck import ClaimCheckError
from services.worker.domain import Job
from services.worker.errors import RequestRefusedError
from services.worker.files.attached import Files, refuse_lost
from services.worker.files.fetch import load_files

URL = "data:text/plain;base64,aGk="


def kept(file_id: str, content: bytes = b"hi", content_type: str = "text/plain") -> AttachedFile:
    digest = hashlib.sha256(content).hexdigest()
    claim = ClaimCheck(key=f"artifacts/{digest[:2]}/{digest}", size_bytes=2, sha256=digest)
    return AttachedFile(file_id=file_id, filename="a.txt", content_type=content_type, content=claim)


def job(request: dict[str, Any], files: Files, history: list[dict[str, Any]] | None = None) -> Job:
    command = RunResponseV1(
        response_id="resp_1",
        principal=Principal(project="research", key_id="key_1"),
        model="gpt-5",
        accepted_at=datetime(2027, 3, 1, tzinfo=UTC),
        events_partition=0,
    )
    return Job(command, 1, request, history or [], files=files)


KNOWN: Files = {"file-1": (kept("file-1"), URL)}
PART = {"type": "input_file", "file_id": "file-1", "detail": "low"}


def test_a_provider_gets_data_in_the_place_of_the_id() -> None:
    request = {"input": [{"role": "user", "content": [PART, {"type": "input_text", "text": "?"}]}]}
    given = copy.deepcopy(request)

    sent = job(request, KNOWN).upstream_request(model="gpt", stream=False)

    assert sent["input"][0]["content"] == [
        {"type": "input_file", "detail": "low", "filename": "a.txt", "file_data": URL},
        {"type": "input_text", "text": "?"},
    ]
    assert request == given


def test_a_name_that_the_client_gave_counts_before_the_files_own() -> None:
    part = {**PART, "filename": "mine.txt"}

    [item] = job({"input": [{"role": "user", "content": [part]}]}, KNOWN).complete_input()

    assert item["content"][0]["filename"] == "mine.txt"


def test_images_outputs_screenshots_and_masks_get_their_data_too() -> None:
    image = {"type": "input_image", "file_id": "file-1", "detail": "high"}
    screen = {"type": "computer_screenshot", "file_id": "file-1"}
    request = {
        "input": [
            {"type": "function_call_output", "call_id": "a", "output": [image]},
            {"type": "computer_call_output", "call_id": "b", "output": screen},
        ],
        "tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}],
    }

    sent = job(request, KNOWN).upstream_request(model="gpt", stream=True)

    assert sent["input"][0]["output"] == [
        {"type": "input_image", "detail": "high", "image_url": URL}
    ]
    assert sent["input"][1]["output"] == {"type": "computer_screenshot", "image_url": URL}
    assert sent["tools"] == [{"type": "image_generation", "input_image_mask": {"image_url": URL}}]


def test_history_is_completed_and_what_is_not_ours_stays() -> None:
    foreign = {"role": "user", "content": [{"type": "input_file", "file_id": "file-else"}]}
    before = {"role": "user", "content": [PART]}

    items = job({"input": "and now?"}, KNOWN, [before, foreign]).complete_input()

    assert items[0]["content"][0]["file_data"] == URL
    assert items[1] is foreign
    assert items[2]["content"] == "and now?"


def test_a_request_without_files_is_sent_as_it_was() -> None:
    content = [{"role": "user", "content": [PART]}]

    assert job({"input": content}, {}).upstream_request(model="g", stream=False)["input"] is content


async def test_a_file_that_was_deleted_meanwhile_is_refused_by_name(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    file = kept("file-1")
    await blobs.put(file.content.key, b"hi", content_type="text/plain")
    gone = kept("file-2", b"gone")

    files = await load_files([file, gone], blobs)

    assert files["file-1"][1] == f"data:text/plain;base64,{base64.b64encode(b'hi').decode()}"
    with pytest.raises(RequestRefusedError, match="file-2") as caught:
        refuse_lost(files)
    assert (caught.value.status, caught.value.param) == (400, "input")
    refuse_lost({"file-1": files["file-1"]})


async def test_bytes_that_are_not_the_files_own_are_not_sent(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    file = kept("file-1")
    await blobs.put(file.content.key, b"changed", content_type="text/plain")

    with pytest.raises(ClaimCheckError):
        await load_files([file], blobs)
