"""Writes the checkpoints of a worker's responses, those of a moment in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from contracts.responses import ClaimCheck
from services.kit.blobs.store import BlobStore
from services.kit.claimcheck import check_in, check_out
from services.kit.outages import OUTAGES
from services.kit.retry import TWO_MINUTES, retry
from services.worker.checkpoints.state import Row, State, decode, encode
from services.worker.errors import LeaseLostError

_CLAIM = b'{"claim":'


class Store(Protocol):
    """Where checkpoints are kept; see `CheckpointStore`."""

    async def save(self, rows: list[Row]) -> set[str]:
        """Write rows; return the ids of those that were ours to write."""
        ...

    async def take_over(self, response_id: str, attempt: int) -> bytes | None:
        """Make the row this attempt's and return its state."""
        ...


class _Batch:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.written: asyncio.Task[set[str]] | None = None


class Checkpoints:
    """Saves checkpoints; while one statement runs, what comes meanwhile waits for the next.

    A state above 512 KiB goes to the object store. `on_written` gets the id of each response that
    has a row from then on. Outages are sat out for about two minutes.
    """

    def __init__(
        self, store: Store, blobs: BlobStore, *, on_written: Callable[[str], None]
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._on_written = on_written
        self._gathering: _Batch | None = None
        self._turn = asyncio.Lock()

    async def save(self, response_id: str, attempt: int, state: State) -> None:
        """Return once the checkpoint is durable; raises `LeaseLostError` and what outages raise."""
        raw = encode(state)
        # Not under the same name as an earlier one, which its row may still point to.
        key = f"{response_id}-checkpoint-{attempt}-{getattr(state, 'turns', 0)}"
        claim = await retry(
            lambda: check_in(self._blobs, key=key, payload=raw), on=(OSError,), backoff=TWO_MINUTES
        )
        if claim is not None:
            raw = orjson.dumps({"claim": claim.model_dump()})
        self._on_written(response_id)
        if response_id not in await self._write(Row(response_id, attempt, raw)):
            raise LeaseLostError(response_id)

    async def take_over(self, response_id: str, attempt: int) -> State | None:
        """Return what earlier attempts left, which can't write any more; raises as `save` does."""
        self._on_written(response_id)
        raw = await retry(
            lambda: self._store.take_over(response_id, attempt), on=OUTAGES, backoff=TWO_MINUTES
        )
        if raw is not None and raw.startswith(_CLAIM):
            claim = ClaimCheck.model_validate(orjson.loads(raw)["claim"])
            raw = await check_out(self._blobs, claim)
        return None if raw is None else decode(raw)

    async def _write(self, row: Row) -> set[str]:
        batch = self._gathering
        if batch is None or batch.written is None:
            batch = self._gathering = _Batch()
            batch.written = asyncio.create_task(self._write_batch(batch), name="checkpoints")
            # Everybody who waited for it may have been stopped.
            batch.written.add_done_callback(_look)
        batch.rows.append(row)
        return await asyncio.shield(batch.written)

    async def _write_batch(self, batch: _Batch) -> set[str]:
        async with self._turn:
            self._gathering = None
            return await retry(
                lambda: self._store.save(batch.rows), on=OUTAGES, backoff=TWO_MINUTES
            )


def _look(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
