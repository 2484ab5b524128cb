"""Changes of keys: rotated, bounded, revoked, also by two replicas at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.config import ApiKeyChangedV1
from contracts.event import Contract
from services.intake.admission.keys import ApiKeys
from services.intake.admission.limits import Limits
from services.intake.errors import ApiError
from services.kit.codec import Stamp, decode, encode
from tests.unit.intake.apps import START, HandClock, Sent
from tests.unit.kit.records import Message


class Log(Sent):
    """One topic for several replicas: each hears all messages, in the order in which they came.

    While `silent` nothing is heard, so that replicas write in ignorance of each other.
    """

    def __init__(self, clock: HandClock, replicas: int = 2) -> None:
        super().__init__()
        self.silent = False
        self.heard = 0
        self.replicas = [ApiKeys(self, clock, admin_secret="") for _ in range(replicas)]

    async def send(self, topic: str, value: bytes | None, **options: object) -> None:
        await super().send(topic, value)
        if not self.silent:
            asyncio.get_running_loop().call_soon(self.hear)

    def hear(self) -> None:
        for _, value in self.messages[self.heard :]:
            for replica in self.replicas:
                replica._learn(Message(value))
        self.heard = len(self.messages)

    async def written(self, count: int) -> None:
        """Wait until so many messages are on the topic."""
        async with asyncio.timeout(5):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()

    def compacted(self) -> ApiKeys:
        """Return a replica that starts when compaction has left the last message of each key."""
        fresh = ApiKeys(self, HandClock(), admin_secret="")
        last: dict[str, bytes] = {}
        for _, value in self.messages:
            last[key_of(decode(value).data)] = value
        for value in last.values():
            fresh._learn(Message(value))
        return fresh


def key_of(data: Contract) -> str:
    assert isinstance(data, ApiKeyChangedV1)
    return data.key_id


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log(clock: HandClock) -> Log:
    return Log(clock)


async def created(keys: ApiKeys, **fields: Any) -> tuple[str, str]:
    record, secret = await keys.create(name="mine", project="proj_a", **fields)
    return record.key_id, secret


def refusal(keys: ApiKeys, secret: str) -> str:
    with pytest.raises(ApiError) as caught:
        keys.authenticate(f"Bearer {secret}")
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    return caught.value.message


async def test_a_rotated_key_keeps_its_old_secret_for_the_time_of_grace(
    log: Log, clock: HandClock
) -> None:
    keys, other = log.replicas
    key_id, old = await created(keys)
    record, new = await keys.rotate(key_id, grace_seconds=60)
    assert record.rotated_at == START
    assert new.startswith(record.prefix)
    clock.seconds = 59
    for replica in (keys, other):
        assert replica.authenticate(f"Bearer {old}").key_id == key_id
        assert replica.authenticate(f"Bearer {new}").key_id == key_id
    clock.seconds = 60
    for replica in (keys, other):
        assert "rotated" in refusal(replica, old)
        replica.authenticate(f"Bearer {new}")


async def test_secrets_that_were_replaced_are_forgotten_after_some_rotations(log: Log) -> None:
    keys = log.replicas[0]
    key_id, secret = await created(keys)
    rotated = [(await keys.rotate(key_id, grace_seconds=0))[1] for _ in range(8)]
    secrets = [secret, *rotated]
    told = [refusal(keys, secret) for secret in secrets[:-1]]
    assert sum("rotated" in message for message in told) == 4
    assert all("Incorrect" in message for message in told[:4])
    keys.authenticate(f"Bearer {secrets[-1]}")
    assert len(keys._by_hash) == 5


async def test_revoking_ends_every_secret(log: Log) -> None:
    keys, other = log.replicas
    key_id, old = await created(keys)
    _, new = await keys.rotate(key_id, grace_seconds=600)
    await other.revoke(key_id)
    for replica in (keys, other):
        assert "revoked" in refusal(replica, old)
        assert "revoked" in refusal(replica, new)
    for change in (keys.rotate(key_id, grace_seconds=0), keys.update(key_id, {"name": "new"})):
        with pytest.raises(ApiError) as caught:
            await change
        assert (caught.value.status, caught.value.code) == (409, "key_revoked")


async def test_bounds_can_be_set_and_taken_away(log: Log, clock: HandClock) -> None:
    keys = log.replicas[0]
    key_id, secret = await created(
        keys,
        allowed_models=("gpt-5*", "mini"),
        requests_per_minute=5,
        expires_at=START + timedelta(seconds=9),
    )
    key = keys.authenticate(f"Bearer {secret}")
    assert key.limits == keys.limits_of(key_id) == Limits(5, None)
    assert [key.allows(name) for name in ("gpt-5", "gpt-5.1", "mini", "mini2", "gpt-4")] == [
        *(True, True, True),
        *(False, False),
    ]
    await keys.update(
        key_id, {"allowed_models": None, "requests_per_minute": None, "expires_at": None}
    )
    clock.seconds = 10
    key = keys.authenticate(f"Bearer {secret}")
    assert key.limits is None
    assert key.allows("gpt-4")


async def test_two_replicas_that_change_a_key_at_once_lose_neither_change(log: Log) -> None:
    keys, other = log.replicas
    key_id, secret = await created(keys)
    log.silent = True
    changes = [
        asyncio.ensure_future(keys.update(key_id, {"requests_per_minute": 7})),
        asyncio.ensure_future(other.update(key_id, {"name": "changed"})),
    ]
    await log.written(3)
    log.silent = False
    log.hear()
    async with asyncio.timeout(5):
        await asyncio.gather(*changes)
    for replica in (keys, other, log.compacted()):
        record = replica.get(key_id)
        assert (record.requests_per_minute, record.name) == (7, "changed")
        replica.authenticate(f"Bearer {secret}")


async def test_a_change_that_crosses_a_revocation_does_not_undo_it(log: Log) -> None:
    keys, other = log.replicas
    key_id, secret = await created(keys)
    log.silent = True
    revoking = asyncio.ensure_future(keys.revoke(key_id))
    changing = asyncio.ensure_future(other.update(key_id, {"name": "changed"}))
    await log.written(3)
    log.silent = False
    log.hear()
    async with asyncio.timeout(5):
        await revoking
        with pytest.raises(ApiError) as caught:
            await changing
    assert caught.value.code == "key_revoked"
    for replica in (keys, other, log.compacted()):
        assert "revoked" in refusal(replica, secret)


@given(st.lists(st.sampled_from(["revoke", "name", "old writer"]), max_size=8), st.data())
async def test_whatever_is_heard_in_whatever_order_a_revoked_key_stays_revoked(
    steps: list[str], data: st.DataObject
) -> None:
    log = Log(HandClock(), replicas=1)
    keys = log.replicas[0]
    key_id, secret = await created(keys)
    record = keys.get(key_id)
    for step in steps:
        if step == "revoke":
            await keys.revoke(key_id)
        elif step == "name" and record.revoked_at is None:
            revision = data.draw(st.integers(0, 5))
            heard = record.model_copy(update={"name": "n", "revision": revision})
            await log.send("config.changed", _message(heard))
        else:
            await log.send("config.changed", _message(record.model_copy(update={"revision": 0})))
        log.hear()
    if "revoke" in steps:
        assert "revoked" in refusal(keys, secret)


def _message(record: ApiKeyChangedV1) -> bytes:
    return encode(record, Stamp(event_id="evt", source="/t", subject="s", time=START))


async def test_there_are_no_more_keys_than_fit(clock: HandClock) -> None:
    log = Log(clock)
    keys = log.replicas[0] = ApiKeys(log, clock, admin_secret="", most=2)
    await created(keys)
    await created(keys)
    with pytest.raises(ApiError) as caught:
        await created(keys)
    assert (caught.value.status, caught.value.code) == (409, "too_many_keys")
