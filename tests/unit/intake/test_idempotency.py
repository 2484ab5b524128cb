"""What becomes of an idempotency key, and of what its request holds, when something fails."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from contracts.packs import Entry, Flag
from services.intake.accepted import Accepted
from services.intake.admission.keys import ApiKey
from services.intake.api.keyed import KeyedCreate
from services.intake.domain import StoredResponse
from services.intake.errors import ApiError
from services.intake.idempotency.service import Idempotency, KeyClaim, KeyHolder, Replay
from services.intake.streaming.followers import Follower
from services.kit.clock import SystemClock

KEY = ApiKey("key_1", "default", None, ("api",))


class Keys:
    """A key that whoever asks takes, with the response of an earlier request or a new one."""

    def __init__(self, earlier: str | None, *, failure: BaseException | None = None) -> None:
        self.earlier = earlier
        self.failure = failure
        self.released: list[str] = []

    async def take(self, claim: KeyClaim) -> KeyHolder | None:
        response_id = self.earlier or claim.response_id
        return KeyHolder(
            claim.body_sha256, response_id, 0, 2, None, None, taken=True, published=False
        )

    async def release(self, claim: KeyClaim, attempt: int) -> None:
        self.released.append(claim.response_id)

    async def published(self, claim: KeyClaim) -> None:
        if self.failure is not None:
            raise self.failure

    async def failed(self, claim: KeyClaim, *, status: int, error: str) -> None: ...


class Refusing:
    """Accepts nothing."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.hub = SimpleNamespace(partition=0)
        self.clock = SystemClock()
        self.bounds = SimpleNamespace(response_seconds=5)
        self.reader = SimpleNamespace(note_finished=lambda _: None)

    async def accept(self, body: bytes, key: ApiKey, **_: Any) -> Any:
        raise ApiError(self.status, "no")

    async def payload(self, entry: Entry) -> bytes:
        return entry.payload


class Ended:
    """A log on which a response ended with a refusal that says when to come again."""

    async def last(self, row: StoredResponse) -> Entry:
        payload = b'{"error":{"message":"Later."},"retry_after_seconds":7}'
        return Entry(row.response_id.encode(), 1, 0, payload, Flag.LAST | Flag.JSON, 429)


class Accepting(Refusing):
    """Accepts everything and counts what is closed."""

    def __init__(self) -> None:
        super().__init__(0)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def accept(self, body: bytes, key: ApiKey, **given: Any) -> Any:
        response_id = given["place"].response_id
        return Accepted(
            response_id,
            stream=False,
            background=False,
            follower=Follower(response_id, limit_bytes=1_000),
            close=self.close,
        )


@pytest.mark.parametrize(
    ("status", "earlier", "frees"),
    [
        (429, None, True),
        (400, None, True),
        (503, None, False),
        # The command of an earlier request with the key may run: a new one would be paid for again.
        (429, "resp_earlier", False),
        (400, "resp_earlier", False),
    ],
)
async def test_a_refusal_frees_the_key_only_when_no_command_can_be_on_the_log(
    status: int, earlier: str | None, frees: bool
) -> None:
    keys = Keys(earlier)
    one = Idempotency(keys, cast(Any, Refusing(status)), cast(Any, None), wait_seconds=0)
    with pytest.raises(ApiError) as refused:
        await one.accept(b"a-key", b"{}", KEY)
    assert refused.value.status == status
    assert bool(keys.released) is frees


async def test_a_request_is_answered_though_the_database_can_not_note_it() -> None:
    keys, responses = Keys(None, failure=PoolTimeoutError()), Accepting()
    one = Idempotency(keys, cast(Any, responses), cast(Any, None), wait_seconds=0)
    accepted = await one.accept(b"a-key", b'{"store":false}', KEY)
    assert isinstance(accepted, Accepted)
    assert responses.closed == 0


async def test_what_goes_wrong_after_the_acceptance_leaves_nothing_open() -> None:
    keys, responses = Keys(None, failure=RuntimeError()), Accepting()
    one = Idempotency(keys, cast(Any, responses), cast(Any, None), wait_seconds=0)
    with pytest.raises(RuntimeError):
        await one.accept(b"a-key", b'{"store":false}', KEY)
    assert responses.closed == 1


async def test_a_refusal_that_is_told_again_says_in_its_header_when_to_come_again() -> None:
    keys = Keys("resp_earlier")
    one = Idempotency(keys, cast(Any, Accepting()), cast(Any, Ended()), wait_seconds=0)
    replay = await one.accept(b"a-key", b"{}", KEY)
    assert isinstance(replay, Replay)
    answer = await one.answer(replay)
    assert orjson.loads(answer.body) == {"error": {"message": "Later."}}
    assert (answer.status, answer.headers) == (429, ((b"retry-after", b"7"),))


class Hanging:
    """Knows of a first request that is not at its end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def accept(self, name: bytes, body: bytes, key: ApiKey) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


async def test_no_more_requests_wait_for_others_than_may_be_open() -> None:
    others = Hanging()
    create = KeyedCreate(cast(Any, others), cast(Any, None), most=1)
    waiting = asyncio.create_task(create.accept(b"one", b"{}", KEY))
    await others.asked.wait()
    with pytest.raises(ApiError) as refused:
        await create.accept(b"two", b"{}", KEY)
    assert (refused.value.status, refused.value.code) == (429, "server_overloaded")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    others.asked.clear()
    again = asyncio.create_task(create.accept(b"two", b"{}", KEY))
    async with asyncio.timeout(5):
        await others.asked.wait()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
