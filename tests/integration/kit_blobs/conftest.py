"""Blob stores on the real disk and on a real S3 server, each empty at first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.opening import open_blobs
from services.kit.blobs.store import BlobStore
from services.kit.settings import ServiceSettings


@pytest.fixture
def s3_blobs(s3: Any) -> Callable[..., BlobStore]:
    """Return a maker of stores on one fresh bucket; it takes settings that differ."""
    bucket = f"test-{uuid4().hex}"

    def make(**changes: Any) -> BlobStore:
        values = {
            "s3_endpoint": s3.endpoint,
            "s3_access_key": s3.access_key,
            "s3_secret_key": s3.secret_key,
            "s3_bucket": bucket,
        }
        return open_blobs(ServiceSettings(**(values | changes)))

    return make


@pytest.fixture(params=["disk", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, s3_blobs: Callable[..., BlobStore]
) -> BlobStore:
    """Return a store that is ready for use."""
    store = DiskBlobs(tmp_path / "blobs") if request.param == "disk" else s3_blobs()
    await store.check()
    return store
