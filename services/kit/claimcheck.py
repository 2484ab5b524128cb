"""Claim checks: a payload too big for a message waits in the object store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import timedelta

from contracts.responses import ClaimCheck
from contracts.topics import CLAIM_CHECK_BYTES
from services.kit.blobs.store import BlobStore
from services.kit.clock import Clock
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_PREFIX = "claims"
_SWEEP_SECONDS = 3600.0


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
        key=f"{_PREFIX}/{key}", size_bytes=len(payload), sha256=hashlib.sha256(payload).hexdigest()
    )
    await blobs.put(claim.key, payload, content_type="application/json")
    return claim


class ClaimSweeper:
    """Removes claim checks once no message can speak of them any more; one service runs it.

    `keep` is longer than any topic with claim checks keeps its messages.
    """

    def __init__(self, blobs: BlobStore, clock: Clock, *, keep: timedelta) -> None:
        self._blobs = blobs
        self._clock = clock
        self._keep = keep
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin to sweep."""
        self._tasks.spawn(self._run(), name="sweep claim checks")

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._tasks.stop()

    async def sweep(self) -> int:
        """Remove what is old enough now; count it. Raises `OSError`."""
        return await self._blobs.expire(_PREFIX, before=self._clock.now() - self._keep)

    async def _run(self) -> None:
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    logger.info("removed %d claim checks that nothing refers to", removed)
            except OSError as error:
                logger.warning("claim checks could not be swept, trying again later: %r", error)
            await asyncio.sleep(_SWEEP_SECONDS)


async def check_out(blobs: BlobStore, claim: ClaimCheck) -> bytes:
    """Return the payload.

    Raises `BlobMissingError`, `ClaimCheckError` when the bytes are not the ones that were checked
    in, and `OSError` when the store fails.
    """
    payload = await blobs.get(claim.key)
    if hashlib.sha256(payload).hexdigest() != claim.sha256:
        raise ClaimCheckError(f"the payload of {claim.key} does not match its sha256")
    return payload
