"""Response objects that were too big for a message, from the object store."""

from __future__ import annotations

from contracts.responses import ClaimCheck
from services.costs.errors import PayloadLostError
from services.kit.blobs.store import BlobMissingError, BlobStore
from services.kit.claimcheck import ClaimCheckError, check_out


class BlobPayloads:
    """Redeems claim checks."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def fetch(self, claim: ClaimCheck) -> bytes:
        """Return the payload; raises `PayloadLostError`, or `OSError` when it may come later."""
        try:
            return await check_out(self._blobs, claim)
        except BlobMissingError as error:
            raise PayloadLostError(f"its payload {claim.key} is gone") from error
        except ClaimCheckError as error:
            raise PayloadLostError(str(error)) from error
