"""The HTTP edge over a real socket, the real PostgreSQL and both blob stores."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from services.artifacts.api import ERRORS, Api
from services.artifacts.domain import artifact_id, blob_key
from services.artifacts.service import Library
from services.artifacts.store import PostgresRecords
from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import BlobStore
from services.kit.database import create_engine
from services.kit.settings import ServiceSettings
from tests.integration.artifacts.conftest import Apply
from tests.integration.artifacts.facts import FINISHED_AT, file_item, finished, image_item, png
from tests.integration.serving import address, as_intake, served

TOKEN = "a-shared-secret"
IMAGE = artifact_id("resp_1", "ig_1", 0)
pytestmark = pytest.mark.usefixtures("engine")


class Client:
    """Speaks as intake does, on behalf of a key of a project."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def ask(
        self,
        path: str,
        *,
        project: str = "research",
        scopes: str = "",
        method: str = "GET",
        **headers: str,
    ) -> tuple[int, Any, Any]:
        """Return status, headers and body: parsed when it is JSON."""
        sent = as_intake(TOKEN, project=project, scopes=scopes) | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        url = f"{self._base}/v1/artifacts{path}"
        async with self._session.request(method, url, headers=sent) as answer:
            if answer.content_type == "application/json" and method != "HEAD":
                return answer.status, answer.headers, await answer.json()
            return answer.status, answer.headers, await answer.read()


async def serving(engine: AsyncEngine, blobs: BlobStore) -> AsyncIterator[Client]:
    api = Api(Library(PostgresRecords(engine), blobs), token=TOKEN)
    app = Starlette(routes=api.routes(), exception_handlers=ERRORS)
    async with served(app) as server, aiohttp.ClientSession() as session:
        yield Client(session, address(server))


@pytest.fixture(scope="module", params=["disk", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3: Any
) -> BlobStore:
    settings = ServiceSettings(
        blob_dir=tmp_path_factory.mktemp("blobs"),
        s3_endpoint=s3.endpoint if request.param == "s3" else None,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_bucket=f"test-{uuid4().hex}",
    )
    store = open_blobs(settings)
    await store.check()
    return store


@pytest.fixture(scope="module")
async def client(migrated: AsyncEngine, blobs: BlobStore) -> AsyncIterator[Client]:
    async for client in serving(migrated, blobs):
        yield client


@pytest.fixture
async def image(apply: Apply) -> bytes:
    """The content of a picture in response resp_1 of project research."""
    content = png("a picture of some length")
    await apply(finished("resp_1", [image_item(content, 1)]))
    return content


async def test_a_list_has_the_shape_of_the_api(client: Client, image: bytes) -> None:
    status, _, body = await client.ask("")

    assert status == 200
    [artifact] = body["data"]
    assert len(artifact.pop("sha256")) == 64
    assert body == {
        "object": "list",
        "data": [
            {
                "id": IMAGE,
                "object": "artifact",
                "response_id": "resp_1",
                "item_id": "ig_1",
                "kind": "image",
                "filename": "ig_1-0.png",
                "content_type": "image/png",
                "size_bytes": len(image),
                "created_at": int(FINISHED_AT.timestamp()),
            }
        ],
        "first_id": IMAGE,
        "last_id": IMAGE,
        "has_more": False,
    }


async def test_an_empty_list_has_no_first_and_no_last(client: Client) -> None:
    assert (await client.ask(""))[2] == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_pages_follow_each_other(client: Client, apply: Apply) -> None:
    for number in range(3):
        await apply(finished(f"resp_{number}", [image_item(png("x"), number)]))

    _, _, first = await client.ask("?limit=2&order=asc")
    _, _, second = await client.ask(f"?limit=2&order=asc&after={first['last_id']}")

    assert [one["response_id"] for one in first["data"]] == ["resp_0", "resp_1"]
    assert first["has_more"] is True
    assert [one["response_id"] for one in second["data"]] == ["resp_2"]
    assert second["has_more"] is False


async def test_a_list_can_be_narrowed_to_a_response_and_a_kind(
    client: Client, apply: Apply
) -> None:
    await apply(finished("resp_1", [image_item(png("x")), file_item(b"text", "notes.txt")]))
    await apply(finished("resp_2", [image_item(png("x"))]))

    _, _, body = await client.ask("?response_id=resp_1&kind=file")

    assert [one["filename"] for one in body["data"]] == ["notes.txt"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1000000000000", "limit"),
        ("limit=0000000019999", "limit"),
        ("limit=two", "limit"),
        ("limit=", "limit"),
        ("order=up", "order"),
        ("kind=video", "kind"),
        ("after=art_none", "after"),
        ("response_id=%00", "response_id"),
    ],
)
async def test_a_bad_parameter_is_named(client: Client, query: str, param: str) -> None:
    status, _, body = await client.ask(f"?{query}")

    assert status == 400
    assert body["error"]["param"] == param
    assert body["error"]["type"] == "invalid_request_error"
    assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_one_artifact_is_the_one_of_the_list(client: Client, image: bytes) -> None:
    _, _, listed = await client.ask("")

    status, _, body = await client.ask(f"/{IMAGE}")

    assert status == 200
    assert body == listed["data"][0]
    assert body["size_bytes"] == len(image)


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("path", [f"/{IMAGE}", f"/{IMAGE}/content"])
async def test_the_artifact_of_another_project_does_not_exist_except_for_an_admin(
    client: Client, path: str
) -> None:
    status, _, body = await client.ask(path, project="sales")

    assert status == 404
    assert body["error"]["code"] == "artifact_not_found"
    unknown = (await client.ask(path.replace(IMAGE, "art_none"), project="sales"))[2]
    assert body["error"]["message"].replace(IMAGE, "art_none") == unknown["error"]["message"]
    assert (await client.ask("", project="sales"))[2]["data"] == []
    assert (await client.ask(path, project="sales", scopes="inference admin"))[0] == 200
    assert len((await client.ask("", project="sales", scopes="admin"))[2]["data"]) == 1


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("path", ["", f"/{IMAGE}", f"/{IMAGE}/content"])
async def test_whoever_does_not_know_the_internal_token_gets_nothing(
    client: Client, path: str
) -> None:
    for authorization in ("", "Bearer ", "Bearer wrong", "Basic x"):
        status, _, body = await client.ask(path, authorization=authorization)

        assert status == 401
        assert body["error"]["code"] == "invalid_internal_token"


async def test_content_comes_whole_with_what_a_browser_needs_to_know(
    client: Client, image: bytes
) -> None:
    status, headers, body = await client.ask(f"/{IMAGE}/content")
    sha256 = (await client.ask(f"/{IMAGE}"))[2]["sha256"]

    assert (status, body) == (200, image)
    assert headers["content-length"] == str(len(image))
    assert headers["content-type"] == "image/png"
    assert headers["etag"] == f'"{sha256}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == 'inline; filename="ig_1-0.png"'
    assert headers["cache-control"] == "private, no-cache"


async def test_content_of_many_chunks_and_of_none_comes_whole(client: Client, apply: Apply) -> None:
    big = os.urandom(1_000_000)
    nothing = file_item(b"", "empty.txt", 1)
    nothing["content"][0]["file_data"] = "data:text/plain;base64,"
    await apply(finished("resp_1", [nothing, file_item(big, "big.bin")]))
    _, _, listed = await client.ask("?order=asc")
    ids = [artifact["id"] for artifact in listed["data"]]

    assert [(await client.ask(f"/{one}/content"))[2] for one in ids] == [b"", big]
    assert (await client.ask(f"/{ids[1]}/content", range="bytes=-700000"))[2] == big[300_000:]
    assert (await client.ask(f"/{ids[0]}/content", range="bytes=0-"))[0] == 416


async def test_a_client_that_has_the_content_is_spared_it(client: Client, image: bytes) -> None:
    _, headers, _ = await client.ask(f"/{IMAGE}/content")

    status, again, body = await client.ask(f"/{IMAGE}/content", if_none_match=headers["etag"])

    assert (status, body) == (304, b"")
    assert again["etag"] == headers["etag"]
    assert (await client.ask(f"/{IMAGE}/content", if_none_match='"other"'))[2] == image


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=0-3", 0, 3), ("bytes=10-", 10, 39), ("bytes=-5", 35, 39)]
)
async def test_a_part_of_the_content_can_be_had(
    client: Client, image: bytes, asked: str, first: int, last: int
) -> None:
    assert len(image) == 40

    status, headers, body = await client.ask(f"/{IMAGE}/content", range=asked)

    assert (status, body) == (206, image[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/40"
    assert headers["content-length"] == str(last - first + 1)


async def test_a_part_outside_the_content_is_refused_with_its_size(
    client: Client, image: bytes
) -> None:
    status, headers, body = await client.ask(f"/{IMAGE}/content", range="bytes=40-")

    assert status == 416
    assert headers["content-range"] == f"bytes */{len(image)}"
    assert body["error"]["code"] == "range_not_satisfiable"


async def test_a_part_of_another_version_is_answered_with_the_whole(
    client: Client, image: bytes
) -> None:
    status, _, body = await client.ask(f"/{IMAGE}/content", range="bytes=0-3", if_range='"old"')

    assert (status, body) == (200, image)


async def test_a_head_request_gets_the_same_headers_and_no_content(
    client: Client, image: bytes
) -> None:
    _, got, _ = await client.ask(f"/{IMAGE}/content")

    status, headers, body = await client.ask(f"/{IMAGE}/content", method="HEAD")

    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(image))
    assert dict(headers) == dict(got)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"<html><script>alert(1)</script>", "text/html; charset=utf-8"),
    ],
)
async def test_what_could_run_in_a_browser_is_an_attachment_whatever_its_name(
    client: Client, apply: Apply, content: bytes, content_type: str
) -> None:
    await apply(finished("resp_1", [file_item(content, "grüße.png")]))
    _, _, listed = await client.ask("")

    _, headers, _ = await client.ask(f"/{listed['data'][0]['id']}/content")

    assert headers["content-type"] == content_type
    assert headers["content-disposition"].startswith('attachment; filename="gr__e.png"; ')
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("image")
async def test_lost_bytes_are_a_fault_of_the_server(client: Client, blobs: BlobStore) -> None:
    sha256 = (await client.ask(f"/{IMAGE}"))[2]["sha256"]
    await blobs.delete(blob_key(sha256))

    status, _, body = await client.ask(f"/{IMAGE}/content")

    assert (status, body["error"]["code"]) == (500, "content_lost")


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "", 405), ("GET", "/a/b/c", 404)])
async def test_an_unknown_route_has_the_error_shape_of_the_api(
    client: Client, method: str, path: str, status: int
) -> None:
    answered, _, body = await client.ask(path, method=method)

    assert answered == status
    assert body["error"]["type"] == "invalid_request_error"


async def test_without_the_database_the_answer_is_to_try_again(tmp_path: Path) -> None:
    engine = create_engine("postgresql://x@127.0.0.1:1/x", pool_size=1, name="test")
    async for client in serving(engine, DiskBlobs(tmp_path)):
        for path in ("", f"/{IMAGE}", f"/{IMAGE}/content"):
            status, headers, body = await client.ask(path)

            assert (status, body["error"]["type"]) == (503, "server_error")
            assert headers["retry-after"] == "1"


@pytest.mark.usefixtures("image")
async def test_without_the_blob_store_the_answer_is_to_try_again(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    settings = ServiceSettings(
        s3_endpoint="http://127.0.0.1:1", s3_access_key="a", s3_secret_key="b"
    )
    async for client in serving(engine, open_blobs(settings)):
        assert (await client.ask(f"/{IMAGE}"))[0] == 200
        assert (await client.ask(f"/{IMAGE}/content"))[0] == 503
