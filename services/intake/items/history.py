"""The conversation so far: items of earlier responses, put together for a command."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import orjson

from services.intake.domain import StoredResponse, input_items
from services.intake.errors import invalid, unavailable
from services.kit.clock import Clock
from services.kit.ids import created_ms

_YOUNG_SECONDS = 60.0
_SETTLE_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
_MOST_TOLD = 10_000

_UNFINISHED = frozenset({"queued", "in_progress"})


class StoredResponses(Protocol):
    """Where finished and running responses are read from."""

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        """Return a response of the project; None if none was projected yet.

        One that is `deleted` is a mark: it is there no more, or not for this project.
        """
        ...

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        """Return a response and those before it, the oldest first, `most` + 1 at the most."""
        ...


class Progress(Protocol):
    """Who knows how far the projection is."""

    async def has_read(self, before_ms: int) -> bool:
        """Whether all is projected that was written before a time, milliseconds since the epoch."""
        ...


class Reader:
    """Reads stored responses; waits, within a bound, for those not projected yet.

    With `progress` a response is not said to be unknown while the projection is behind, as when the
    replica that projects it has just died: who asks is told to come again (`ApiError`, 503).
    """

    def __init__(
        self,
        store: StoredResponses,
        clock: Clock,
        *,
        wait_seconds: float,
        progress: Progress | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._progress = progress
        # By this a time is told that no setting of the clock changes.
        self._steady = clock.now().timestamp() - clock.monotonic()
        self._told: OrderedDict[str, None] = OrderedDict()

    def note_finished(self, response_id: str) -> None:
        """Remember that a client has the end of this response, which reads must not fall behind."""
        self._told[response_id] = None
        if len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)

    def has_told(self, response_id: str) -> bool:
        """Whether a client has the end of this response from here, as far back as is known."""
        return response_id in self._told

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        """Return the response, None when it does not exist for this project or was deleted.

        Raises `ApiError` (503) when nobody can tell yet.
        """
        began = self._clock.now()
        deadline = self._deadline(response_id)
        pause = _FIRST_PAUSE_SECONDS
        has_all = False
        while True:
            row = await self._store.get(response_id, project=project)
            if row is not None and row.deleted:
                return None
            # A row may be made by the end of a response; what was asked comes with its command.
            behind = (
                row is None
                or row.request is None
                or (row.response is None and response_id in self._told)
            )
            if not behind:
                return row
            if self._clock.monotonic() >= deadline:
                if row is not None or has_all:
                    return row
                await self._surely_unknown(response_id, began)
                # It may have come while the brokers were asked.
                has_all = True
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def settled(self, row: StoredResponse) -> StoredResponse:
        """Return the response again once its end is there, within a bound; else as it is.

        For responses that are not in the background. Who knows the id of one that was asked for as
        JSON has its answer, perhaps from another replica. Who knows that of a stream may have its
        end from another replica, so that it is given a moment.
        """
        wait_seconds = self._wait_seconds
        if row.stream and not self.has_told(row.response_id):
            wait_seconds = min(wait_seconds, _SETTLE_SECONDS)
        deadline = min(self._deadline(row.response_id), self._clock.monotonic() + wait_seconds)
        pause = _FIRST_PAUSE_SECONDS
        while row.response is None and self._clock.monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            row = await self._store.get(row.response_id, project=row.project) or row
        return row

    async def finished_chain(
        self, response_id: str, *, project: str, most: int
    ) -> list[StoredResponse]:
        """Return a finished response and all before it, oldest first.

        Raises `ApiError`: 400, and 503 when a part of it is not projected yet.
        """
        began = self._clock.now()
        deadline = self._deadline(response_id)
        pause = _FIRST_PAUSE_SECONDS
        has_all = False
        while True:
            chain = await self._store.chain(response_id, project=project, most=most)
            finished = bool(chain) and chain[-1].response is not None
            if finished and is_whole(chain, most=most):
                break
            if not chain and await self._is_gone(response_id, project):
                raise _unusable(response_id, found=False)
            if self._clock.monotonic() >= deadline:
                # Without what is missing the model would be asked with half of what was said.
                # And what is not finished as far as is known here may have ended long ago.
                missing = [*missing_in(chain), *[response_id] * (not finished)]
                if not has_all:
                    for one in missing:
                        await self._surely_unknown(one, began)
                    has_all = True
                    continue
                if finished:
                    break
                if chain and self._must_have_ended(chain[-1]):
                    raise _not_yet(response_id)
                raise _unusable(response_id, found=bool(chain))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if len(chain) > most:
            raise invalid(
                f"The chain before '{response_id}' is longer than {most} responses.",
                param="previous_response_id",
                code="chain_too_long",
            )
        return chain

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        """Return a response, finished or not, after all before it; empty when there is none."""
        deadline = self._deadline(response_id)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            chain = await self._store.chain(response_id, project=project, most=most)
            if (chain and is_whole(chain, most=most)) or self._clock.monotonic() >= deadline:
                return chain
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _is_gone(self, response_id: str, project: str) -> bool:
        """Whether it was deleted or is another project's: no projection will bring it."""
        row = await self._store.get(response_id, project=project)
        return row is not None and row.deleted

    def _must_have_ended(self, row: StoredResponse) -> bool:
        """Whether who knows the id was told the end, so that its fact is still to come.

        The worker that told it may have died before it wrote the fact; another one will.
        """
        asked_as_json = not row.stream and not row.background
        return asked_as_json or self.has_told(row.response_id)

    async def _surely_unknown(self, response_id: str, began: datetime) -> None:
        """Raise `ApiError` (503) unless all that may tell of it before `began` is projected.

        An outage may be longer than an id is young; nobody waits for the projection then.
        """
        created = created_ms(response_id)
        if self._progress is None or created is None:
            return
        before_ms = int(began.timestamp() * 1000)
        if not self._is_young(response_id):
            before_ms = min(before_ms, created + int(_YOUNG_SECONDS * 1000))
        if not await self._progress.has_read(before_ms):
            raise _not_yet(response_id)

    def _deadline(self, response_id: str) -> float:
        """Only a young id of ours can be one that the projection will still bring."""
        now = self._clock.monotonic()
        return now + self._wait_seconds if self._is_young(response_id) else now

    def _is_young(self, response_id: str) -> bool:
        """Whether it was made lately, also when the clock was set forward or back since."""
        created = created_ms(response_id)
        if created is None:
            return False
        clocks = (self._clock.now().timestamp(), self._steady + self._clock.monotonic())
        return any(abs(now - created / 1000) < _YOUNG_SECONDS for now in clocks)


def _not_yet(response_id: str) -> Exception:
    return unavailable(f"What belongs to response '{response_id}' is not known here yet.")


def _unusable(response_id: str, *, found: bool) -> Exception:
    if found:
        return invalid(
            f"Previous response with id '{response_id}' is not finished.",
            param="previous_response_id",
            code="previous_response_not_finished",
        )
    return invalid(
        f"Previous response with id '{response_id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def is_whole(chain: Sequence[StoredResponse], *, most: int) -> bool:
    """Whether the projection has brought all of a chain: it may bring ends before beginnings.

    Those before the last one had ended when it was asked for, so that one without its end, or one
    that is not there at all, is still to come. A deleted one has neither request nor response.
    """
    if chain[0].previous_response_id is not None and len(chain) <= most:
        return False
    *earlier, last = chain
    if any(row.response is None and row.status in _UNFINISHED for row in earlier):
        return False
    return all(row.request is not None or row.response is None for row in (*earlier, last))


def missing_in(chain: Sequence[StoredResponse]) -> list[str]:
    """Return the ids of the responses of a chain that the projection has not brought in full.

    The last one may not have ended yet, which is another matter.
    """
    if not chain:
        return []
    missing = [row.response_id for row in chain if row.response is not None and row.request is None]
    missing += [row.response_id for row in chain[:-1] if row.status in _UNFINISHED]
    first = chain[0].previous_response_id
    return missing if first is None else [*missing, first]


def items_of(chain: Sequence[StoredResponse]) -> list[dict[str, Any]]:
    """Return the input and output items of a chain in order; instructions do not carry over."""
    items: list[dict[str, Any]] = []
    for row in chain:
        if row.request is None or row.response is None:
            continue
        items += input_items(orjson.loads(row.request))
        items += orjson.loads(row.response).get("output") or []
    return items
