"""Which store the settings name, and which keys no store takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.s3 import S3Blobs
from services.kit.settings import ServiceSettings


def test_without_an_endpoint_blobs_are_on_disk(tmp_path: Path) -> None:
    assert isinstance(open_blobs(ServiceSettings(s3_endpoint=None, blob_dir=tmp_path)), DiskBlobs)


def test_an_empty_endpoint_is_none(tmp_path: Path) -> None:
    assert isinstance(open_blobs(ServiceSettings(s3_endpoint="", blob_dir=tmp_path)), DiskBlobs)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://s3.example.com/"])
def test_with_an_endpoint_blobs_are_on_s3(endpoint: str) -> None:
    assert isinstance(open_blobs(ServiceSettings(s3_endpoint=endpoint)), S3Blobs)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "s3.example.com", "http://host/bucket"])
def test_an_endpoint_that_is_no_plain_url_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(ValueError, match="S3_ENDPOINT"):
        open_blobs(ServiceSettings(s3_endpoint=endpoint))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "one",
        "/a/b",
        "a//b",
        "a/b/",
        "a/../b",
        "a/..",
        "a/.",
        "a/.hidden",
        "a/b\n",
        "a/b c",
        "é/b",
    ],
)
async def test_a_key_that_could_leave_its_folder_is_refused(key: str, tmp_path: Path) -> None:
    # A store that touched its folder would fail with another error: there is none.
    blobs = DiskBlobs(tmp_path / "none")

    for call in (blobs.put(key, b"", content_type="text/plain"), blobs.get(key), blobs.delete(key)):
        with pytest.raises(ValueError, match="not a blob key"):
            await call
