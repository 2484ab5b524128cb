"""Which store of blobs a service uses."""

from __future__ import annotations

from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.s3 import open_s3
from services.kit.blobs.store import BlobStore
from services.kit.settings import ServiceSettings


def open_blobs(settings: ServiceSettings) -> BlobStore:
    """Return the store the settings name: S3 when there is an endpoint, else local disk.

    Raises `ValueError` for an endpoint that is not `http(s)://host[:port]`.
    """
    return open_s3(settings) if settings.s3_endpoint else DiskBlobs(settings.blob_dir)
