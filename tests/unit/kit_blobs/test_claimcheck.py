"""Which payloads go to the store, and what is refused when they come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from contracts.responses import ClaimCheck
from contracts.topics import CLAIM_CHECK_BYTES
from services.kit.blobs.store import BlobMissingError
from services.kit.claimcheck import ClaimCheckError, ClaimSweeper, check_in, check_out


class MemoryBlobs:
    """A blob store in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.expired: list[tuple[str, datetime]] = []

    async def put(self, key: str, content: bytes, *, content_type: str) -> None:
        assert content_type
        self.kept[key] = content

    async def get(self, key: str) -> bytes:
        try:
            return self.kept[key]
        except KeyError as error:
            raise BlobMissingError(key) from error

    async def stream(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        content = await self.get(key)
        yield content[start : None if length is None else start + length]

    async def join(self, key: str, pieces: Sequence[str]) -> None:
        self.kept[key] = b"".join([await self.get(piece) for piece in pieces])

    async def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    async def expire(self, prefix: str, *, before: datetime) -> int:
        self.expired.append((prefix, before))
        return 0

    async def check(self) -> None:
        """Memory is always there."""


class FixedClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


async def test_a_payload_up_to_the_limit_travels_itself() -> None:
    blobs = MemoryBlobs()

    assert await check_in(blobs, key="resp_1/1", payload=b"x" * CLAIM_CHECK_BYTES) is None
    assert blobs.kept == {}


async def test_a_payload_above_the_limit_waits_in_the_store_and_comes_back_whole() -> None:
    blobs = MemoryBlobs()
    payload = b"x" * (CLAIM_CHECK_BYTES + 1)

    claim = await check_in(blobs, key="resp_1/1", payload=payload)

    assert claim is not None
    assert claim.key == "claims/resp_1/1"
    assert claim.size_bytes == len(payload)
    assert await check_out(blobs, claim) == payload


async def test_a_payload_that_was_changed_is_refused() -> None:
    blobs = MemoryBlobs()
    claim = await check_in(blobs, key="resp_1", payload=b"x" * (CLAIM_CHECK_BYTES + 1))
    assert claim is not None

    blobs.kept[claim.key] = b"y" * claim.size_bytes

    with pytest.raises(ClaimCheckError, match="claims/resp_1"):
        await check_out(blobs, claim)


async def test_a_claim_without_its_payload_is_told_from_one_that_was_changed() -> None:
    claim = ClaimCheck(key="claims/resp_1", size_bytes=1, sha256="0" * 64)

    with pytest.raises(BlobMissingError):
        await check_out(MemoryBlobs(), claim)


async def test_a_sweep_removes_claims_older_than_the_messages_that_speak_of_them() -> None:
    blobs = MemoryBlobs()

    await ClaimSweeper(blobs, FixedClock(), keep=timedelta(days=8)).sweep()

    assert blobs.expired == [("claims", datetime(2026, 11, 14, 12, tzinfo=UTC))]
