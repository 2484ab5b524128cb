"""Fetches the files that a command names."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence

from contracts.responses import AttachedFile
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.claimcheck import ClaimCheckError
from services.worker.files.attached import Files


async def load_files(files: Sequence[AttachedFile], blobs: BlobStore) -> Files:
    """Fetch the contents of a command's files; raises `OSError` when the store fails."""
    loaded: dict[str, tuple[AttachedFile, str | None]] = {}
    for file in files:
        try:
            content = await blobs.get(file.content.key)
        except BlobMissingError:
            loaded[file.file_id] = (file, None)
            continue
        # Megabytes would hold up the event loop.
        loaded[file.file_id] = (file, await asyncio.to_thread(_data_url, file, content))
    return loaded


def _data_url(file: AttachedFile, content: bytes) -> str:
    if hashlib.sha256(content).hexdigest() != file.content.sha256:
        raise ClaimCheckError(f"the content of {file.file_id} does not match its sha256")
    return f"data:{file.content_type};base64,{base64.b64encode(content).decode()}"
