"""Claim checks: a payload too big for a message waits in the object store."""

from __future__ import annotations

import hashlib

from contracts.responses import ClaimCheck
from contracts.topics import CLAIM_CHECK_BYTES
from services.kit.blobs import BlobStore


class ClaimCheckError(ValueError):
    """The stored payload is not the one the message speaks of."""


async def check_in(blobs: BlobStore, *, key: str, payload: bytes) -> ClaimCheck | None:
    """Store `payload` under `claims/<key>` when it is above 512 KiB; None: it may travel.

    The same key again replaces the payload, so give each attempt one of its own. The claim is valid
    as soon as this returns. Raises `OSError` when the store fails.
    """
    if len(payload) <= CLAIM_CHECK_BYTES:
        return None
    claim = ClaimCheck(
        key=f"claims/{key}", size_bytes=len(payload), sha256=hashlib.sha256(payload).hexdigest()
    )
    await blobs.put(claim.key, payload, content_type="application/json")
    return claim


async def check_out(blobs: BlobStore, claim: ClaimCheck) -> bytes:
    """Return the payload.

    Raises `BlobMissingError`, `ClaimCheckError` when the bytes are not the ones that were checked
    in, and `OSError` when the store fails.
    """
    payload = await blobs.get(claim.key)
    if hashlib.sha256(payload).hexdigest() != claim.sha256:
        raise ClaimCheckError(f"the payload of {claim.key} does not match its sha256")
    return payload
