"""The Files API over a real socket, the real PostgreSQL and both blob stores."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from services.artifacts.api import ERRORS
from services.artifacts.domain import blob_key
from services.artifacts.files.api import ERRORS as FILE_ERRORS
from services.artifacts.files.api import FilesApi
from services.artifacts.files.domain import UploadLimits
from services.artifacts.files.service import Files
from services.artifacts.files.store import PostgresFileRecords
from services.artifacts.files.sweeper import FileSweeper
from services.artifacts.tables import BLOBS, FILES
from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import PIECE_BYTES, BlobMissingError, BlobStore
from services.kit.settings import ServiceSettings
from tests.e2e.waiting import found, until
from tests.integration.artifacts.conftest import Apply
from tests.integration.artifacts.facts import deleted, file_item, finished
from tests.integration.serving import address, as_intake, served

TOKEN = "a-shared-secret"
LIMIT = 3 * PIECE_BYTES
NOBODY = "file-019b3f0c2a177c4e8b1d5a6f7e809102"
pytestmark = pytest.mark.usefixtures("engine")


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


@dataclass
class Api:
    """A served Files API, spoken to as intake does on behalf of a key of a project."""

    files: Files
    clock: HandClock
    session: aiohttp.ClientSession
    base: str

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        project: str = "research",
        token: str = TOKEN,
        data: Any = None,
        json: Any = None,
        **headers: str,
    ) -> tuple[int, Any]:
        sent = {
            **as_intake(token, project=project),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        asking = self.session.request(method, self.base + path, headers=sent, data=data, json=json)
        async with asking as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.read()

    async def upload(
        self, content: Any, name: str = "a.txt", project: str = "research", **fields: str
    ) -> tuple[int, Any]:
        form = aiohttp.FormData({"purpose": "user_data", **fields}, quote_fields=False)
        body = io.BytesIO(content) if isinstance(content, bytes) else content
        form.add_field("file", body, filename=name)
        return await self.ask("/v1/files", method="POST", data=form, project=project)

    async def listed(self, query: str = "", project: str = "research") -> list[str]:
        status, body = await self.ask(f"/v1/files{query}", project=project)
        assert status == 200
        return [file["id"] for file in body["data"]]


async def serving(
    engine: AsyncEngine, blobs: BlobStore, *, idle_seconds: float = 20
) -> AsyncIterator[Api]:
    clock = HandClock()
    limits = UploadLimits(max_bytes=LIMIT, max_open=4, batch_files_expire=timedelta(days=30))
    files = Files(PostgresFileRecords(engine), blobs, clock, limits=limits)
    api = FilesApi(files, token=TOKEN, idle_seconds=idle_seconds)
    app = Starlette(
        routes=[*api.routes(), *api.internal_routes()],
        exception_handlers={**ERRORS, **FILE_ERRORS},
    )
    async with served(app) as server, aiohttp.ClientSession() as session:
        yield Api(files, clock, session, address(server))


@pytest.fixture(params=["disk", "s3"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path, s3: Any) -> BlobStore:
    settings = ServiceSettings(
        blob_dir=tmp_path / "blobs",
        s3_endpoint=s3.endpoint if request.param == "s3" else None,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_bucket=f"test-{uuid4().hex}",
    )
    store = open_blobs(settings)
    await store.check()
    return store


@pytest.fixture
async def api(engine: AsyncEngine, blobs: BlobStore) -> AsyncIterator[Api]:
    async for spoken_to in serving(engine, blobs):
        yield spoken_to


def key_of(content: bytes) -> str:
    return blob_key(hashlib.sha256(content).hexdigest())


async def is_stored(blobs: BlobStore, content: bytes) -> bool:
    try:
        return await blobs.get(key_of(content)) == content
    except BlobMissingError:
        return False


async def pieces_left(blobs: BlobStore) -> int:
    """Count the pieces of uploads, which goes by removing them."""
    return await blobs.expire("uploads", before=datetime.now(UTC) + timedelta(hours=1))


async def test_a_file_has_the_shape_of_the_api(api: Api) -> None:
    status, file = await api.upload(b"some text", "notes.md")
    now = int(api.clock.now().timestamp())

    assert status == 200
    assert file.pop("id").startswith("file-")
    assert file == {
        "object": "file",
        "bytes": 9,
        "created_at": now,
        "expires_at": None,
        "filename": "notes.md",
        "purpose": "user_data",
        "status": "processed",
        "status_details": None,
    }


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 3, 3 * PIECE_BYTES]
)
async def test_a_file_of_any_size_comes_back_whole(api: Api, blobs: BlobStore, size: int) -> None:
    content = os.urandom(size)
    _, file = await api.upload(content)

    assert await api.ask(f"/v1/files/{file['id']}/content") == (200, content)
    assert await pieces_left(blobs) == 0
    part = await api.ask(f"/v1/files/{file['id']}/content", range="bytes=0-9")
    assert part == ((206, content[:10]) if size else (416, part[1]))


async def test_equal_contents_share_one_blob_with_each_other_and_with_artifacts(
    api: Api, blobs: BlobStore, engine: AsyncEngine, apply: Apply
) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    _, first = await api.upload(content)
    _, second = await api.upload(content, "b.txt", project="sales")
    async with engine.connect() as connection:
        assert len((await connection.execute(select(BLOBS))).all()) == 1

    assert (await api.ask(f"/v1/files/{first['id']}", method="DELETE"))[0] == 200
    assert await is_stored(blobs, content)
    path = f"/v1/files/{second['id']}"
    assert (await api.ask(path, method="DELETE", project="sales"))[0] == 200
    assert not await is_stored(blobs, content)
    async with engine.connect() as connection:
        assert (await connection.execute(select(BLOBS))).all() == []


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_the_file_and_the_artifact_of_one_content_keep_it_for_each_other(
    api: Api, blobs: BlobStore, apply: Apply
) -> None:
    content = b"the same text"
    for first_gone in ("file", "artifact"):
        _, file = await api.upload(content)
        await apply(finished(f"resp_{first_gone}", [file_item(content, "a.txt")]))
        ends = {
            "file": api.ask(f"/v1/files/{file['id']}", method="DELETE"),
            "artifact": apply(deleted(f"resp_{first_gone}")),
        }
        await ends.pop(first_gone)
        assert await is_stored(blobs, content)
        await ends.popitem()[1]
        assert not await is_stored(blobs, content)


async def test_uploads_of_one_content_at_once_all_succeed(api: Api, blobs: BlobStore) -> None:
    content = os.urandom(PIECE_BYTES + 1)
    answers = await asyncio.gather(*(api.upload(content, f"{n}.bin") for n in range(4)))

    assert [status for status, _ in answers] == [200] * 4
    assert await is_stored(blobs, content)
    assert await pieces_left(blobs) == 0


async def test_deleting_and_uploading_one_content_at_once_loses_nothing(
    api: Api, blobs: BlobStore
) -> None:
    content = b"wanted and unwanted"
    _, file = await api.upload(content)
    for _ in range(10):
        path = f"/v1/files/{file['id']}"
        uploaded, removed = await asyncio.gather(
            api.upload(content), api.ask(path, method="DELETE")
        )
        file = uploaded[1]
        assert removed[0] == 200
        assert await api.ask(f"/v1/files/{file['id']}/content") == (200, content)


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_pages_follow_each_other_in_both_orders(api: Api) -> None:
    ids = []
    for number in range(5):
        api.clock.time += timedelta(seconds=number % 2)
        purpose = "vision" if number == 2 else "user_data"
        ids.append((await api.upload(b"x", f"{number}.txt", purpose=purpose))[1]["id"])

    assert await api.listed("?order=asc") == ids
    assert await api.listed() == ids[::-1]
    assert await api.listed("?purpose=vision") == [ids[2]]
    assert await api.listed("?purpose=nothing") == []
    assert await api.listed(f"?order=asc&limit=2&after={ids[1]}") == ids[2:4]
    assert await api.listed(f"?limit=2&after={ids[1]}") == [ids[0]]
    assert await api.listed(project="sales") == []
    _, page = await api.ask("/v1/files?limit=4")
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (ids[4], ids[1])
    assert (await api.ask("/v1/files?limit=5"))[1]["has_more"] is False


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=00000000199999", "limit"),
        ("limit=000000001" + "0" * 5_000, "limit"),
        ("limit=", "limit"),
        ("order=up", "order"),
        (f"after={NOBODY}", "after"),
        ("purpose=%00", "purpose"),
    ],
)
async def test_a_bad_parameter_is_named(api: Api, query: str, param: str) -> None:
    status, body = await api.ask(f"/v1/files?{query}")

    assert (status, body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_a_file_exists_for_its_project_alone(api: Api) -> None:
    file_id = (await api.upload(b"secret"))[1]["id"]
    for path, method in (("", "GET"), ("/content", "GET"), ("", "DELETE")):
        for one, project in ((file_id, "sales"), (NOBODY, "research"), ("%00", "research")):
            answer = await api.ask(f"/v1/files/{one}{path}", method=method, project=project)
            scoped = await api.ask(
                f"/v1/files/{one}{path}", method=method, project=project, x_antiphon_scopes="admin"
            )
            assert answer == scoped
            assert (answer[0], answer[1]["error"]["param"]) == (404, "id")
    assert await api.ask(f"/v1/files/{file_id}/content") == (200, b"secret")
    assert (await api.ask(f"/v1/files?after={file_id}", project="sales"))[0] == 400
    asked = {"ids": [file_id, NOBODY]}
    assert (await api.ask("/internal/files", method="POST", json=asked, project="sales"))[1] == {
        "files": []
    }


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_intake_learns_where_the_bytes_are_and_what_they_are(
    api: Api, blobs: BlobStore
) -> None:
    content = b"%PDF-1.7 and more"
    file_id = (await api.upload(content, "report.txt"))[1]["id"]
    _, body = await api.ask("/internal/files", method="POST", json={"ids": [file_id, NOBODY]})

    [file] = body["files"]
    assert (file["file_id"], file["filename"]) == (file_id, "report.txt")
    assert file["content_type"] == "application/pdf"
    assert file["content"]["size_bytes"] == len(content)
    assert await blobs.get(file["content"]["key"]) == content


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
@pytest.mark.parametrize("path", ["/v1/files", f"/v1/files/{NOBODY}", "/internal/files"])
async def test_whoever_does_not_know_the_internal_token_gets_nothing(api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        status, _ = await api.ask(path, method=method, token="wrong")
        assert status in (401, 405)


async def test_a_file_is_gone_when_its_time_is_over_and_its_bytes_after_the_next_sweep(
    api: Api, blobs: BlobStore, engine: AsyncEngine
) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file_id = (await api.upload(b"short-lived", **fields))[1]["id"]
    kept = (await api.upload(b"kept"))[1]["id"]
    api.clock.time += timedelta(seconds=3599)
    assert await api.files.sweep() == 0
    assert await api.listed() == [kept, file_id] or await api.listed() == [file_id, kept]

    api.clock.time += timedelta(seconds=1)
    assert (await api.ask(f"/v1/files/{file_id}"))[0] == 404
    assert (await api.ask(f"/v1/files/{file_id}/content"))[0] == 404
    assert (await api.ask(f"/v1/files/{file_id}", method="DELETE"))[0] == 404
    assert await api.listed() == [kept]
    assert await is_stored(blobs, b"short-lived")

    assert await api.files.sweep() == 1
    assert not await is_stored(blobs, b"short-lived")
    assert await is_stored(blobs, b"kept")
    async with engine.connect() as connection:
        assert [row.id for row in await connection.execute(select(FILES))] == [kept]


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_the_sweeper_sweeps_by_itself(api: Api, blobs: BlobStore) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    await api.upload(b"short-lived", **fields)
    api.clock.time += timedelta(hours=2)
    sweeper = FileSweeper(api.files, every_seconds=0.01)
    await sweeper.start()

    async def swept() -> bool:
        return not await is_stored(blobs, b"short-lived")

    try:
        await found(swept, "the bytes are swept")
    finally:
        await sweeper.stop()


async def test_a_file_above_the_limit_is_refused_and_leaves_nothing(
    api: Api, blobs: BlobStore
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        with suppress(ConnectionError):
            for _ in range(400):
                yield b"x" * 65_536

    told = await api.upload(b"x" * (LIMIT + 100_000))
    found_out = await api.upload(b"x" * (LIMIT + 1))
    assert told[0] == found_out[0] == 413
    assert told[1]["error"]["code"] == "file_too_large"
    with suppress(aiohttp.ClientError):
        assert (await api.upload(endless()))[0] == 413
    assert await api.listed() == []
    assert await pieces_left(blobs) == 0


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_a_form_without_end_is_cut_off_even_behind_its_last_boundary(api: Api) -> None:
    disposition = b'Content-Disposition: form-data; name="file"; filename="a"'
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--edge\r\n" + disposition + b"\r\n\r\nhi\r\n--edge--\r\n"
        with suppress(ConnectionError):
            while sent < 10 * LIMIT:
                sent += 65_536
                yield b"x" * 65_536

    with suppress(aiohttp.ClientError):
        status, _ = await api.ask(
            "/v1/files",
            method="POST",
            data=endless(),
            content_type="multipart/form-data; boundary=edge",
        )
        assert status == 413
    assert sent < 10 * LIMIT
    assert await api.listed() == []


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_an_upload_that_breaks_off_or_stops_leaves_nothing(
    engine: AsyncEngine, blobs: BlobStore, tmp_path: Path
) -> None:
    async def begun() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_536
        await asyncio.Event().wait()

    def pieces() -> list[Path]:
        return list((tmp_path / "blobs" / "uploads").glob("*"))

    async for api in serving(engine, blobs):
        hung_up = asyncio.create_task(api.upload(begun()))
        await until(pieces, "a piece is stored")
        hung_up.cancel()
        await asyncio.wait([hung_up])
        await until(lambda: not pieces(), "no piece is left")
        assert await api.listed() == []
    async for api in serving(engine, blobs, idle_seconds=0.1):
        status, body = await api.upload(begun())
        assert (status, body["error"]["code"]) == (408, "timeout")
        await until(lambda: not pieces(), "no piece is left")
    async with engine.connect() as connection:
        assert (await connection.execute(select(BLOBS))).all() == []


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_as_many_uploads_are_open_as_may_be(api: Api) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"begun"
        await go_on.wait()

    open_ones = [asyncio.create_task(api.upload(slow())) for _ in range(4)]
    await until(lambda: api.files._open == 4, "the uploads are open")
    status, body = await api.upload(b"one more")
    go_on.set()

    assert (status, body["error"]["type"]) == (503, "server_error")
    assert [status for status, _ in await asyncio.gather(*open_ones)] == [200] * 4
    assert (await api.upload(b"one more"))[0] == 200


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_what_a_crash_left_of_uploads_is_swept(
    api: Api, blobs: BlobStore, engine: AsyncEngine
) -> None:
    content = b"stored, but its record never came"
    await blobs.put(key_of(content), content, content_type="text/plain")
    async with PostgresFileRecords(engine).begin() as transaction:
        await transaction.lock_blob(hashlib.sha256(content).hexdigest(), len(content))
    await blobs.put("uploads/crashed-00000", b"a piece", content_type="text/plain")

    api.clock.time = datetime.now(UTC)
    await api.files.sweep()
    assert not await is_stored(blobs, content)
    assert await blobs.get("uploads/crashed-00000") == b"a piece"
    api.clock.time += timedelta(days=2)
    await api.files.sweep()
    assert await pieces_left(blobs) == 0


async def test_without_the_blob_store_uploads_answer_to_try_again(engine: AsyncEngine) -> None:
    settings = ServiceSettings(
        s3_endpoint="http://127.0.0.1:1", s3_access_key="a", s3_secret_key="b"
    )
    async for api in serving(engine, open_blobs(settings)):
        for size in (10, 2 * PIECE_BYTES):
            assert (await api.upload(b"x" * size))[0] == 503
        assert await api.listed() == []


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
async def test_a_deletion_holds_though_the_store_is_away(api: Api, blobs: BlobStore) -> None:
    assert isinstance(blobs, DiskBlobs)
    file_id = (await api.upload(b"text"))[1]["id"]
    path = blobs._root / key_of(b"text")
    path.unlink()
    path.mkdir()

    assert (await api.ask(f"/v1/files/{file_id}", method="DELETE"))[0] == 200
    assert (await api.ask(f"/v1/files/{file_id}"))[0] == 404
    path.rmdir()
    await api.files.sweep()
