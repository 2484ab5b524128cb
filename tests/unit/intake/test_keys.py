"""API keys: learned from a topic, checked in memory, gone the moment they are revoked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from aiokafka.errors import KafkaConnectionError

from contracts.config import ApiKeyChangedV1
from services.intake.admission.keys import SECRET_PREFIX, ApiKey, ApiKeys
from services.intake.errors import ApiError
from tests.unit.intake.apps import START, HandClock, Sent
from tests.unit.kit.records import Message

ADMIN = "sk-antiphon-the-admin-key"


class Echo(Sent):
    """Gives every message back to the keys, as the topic would."""

    keys: ApiKeys

    async def send(self, topic: str, value: bytes | None, **options: object) -> None:
        await super().send(topic, value)
        asyncio.get_running_loop().call_soon(self.keys._learn, Message(value))


def make(clock: HandClock | None = None, *, admin: str = ADMIN) -> ApiKeys:
    echo = Echo()
    echo.keys = ApiKeys(echo, clock or HandClock(), admin_secret=admin)
    return echo.keys


async def created(keys: ApiKeys, *, seconds: float | None = None) -> tuple[ApiKeyChangedV1, str]:
    expires_at = None if seconds is None else START + timedelta(seconds=seconds)
    return await keys.create(
        name="mine", project="proj_a", user="ada", scopes=("api",), expires_at=expires_at
    )


def refusal(keys: ApiKeys, authorization: str) -> str:
    with pytest.raises(ApiError) as caught:
        keys.authenticate(authorization)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    return caught.value.message


async def test_a_new_key_works_at_once_and_its_secret_is_kept_nowhere() -> None:
    keys = make()
    record, secret = await created(keys)
    assert secret.startswith(SECRET_PREFIX)
    assert keys.authenticate(f"Bearer {secret}") == ApiKey(record.key_id, "proj_a", "ada", ("api",))
    assert keys.authenticate(f"bearer  {secret} ").key_id == record.key_id
    producer = keys._producer
    assert isinstance(producer, Echo)
    assert secret.encode() not in producer.messages[0][1]
    assert secret.startswith(record.prefix)
    assert len(record.prefix) < len(secret) / 2


async def test_a_revoked_key_is_refused_and_stays_in_the_list() -> None:
    keys = make()
    record, secret = await created(keys)
    revoked = await keys.revoke(record.key_id)
    assert "revoked" in refusal(keys, f"Bearer {secret}")
    assert keys.list() == [revoked]
    assert await keys.revoke(record.key_id) == revoked


async def test_a_key_expires_by_the_clock() -> None:
    clock = HandClock()
    keys = make(clock)
    _, secret = await created(keys, seconds=10)
    clock.seconds = 9.9
    keys.authenticate(f"Bearer {secret}")
    clock.seconds = 10
    assert "expired" in refusal(keys, f"Bearer {secret}")


async def test_changes_at_once_do_not_wait_for_each_other() -> None:
    keys = make()
    record, _ = await created(keys)
    clock = keys._clock
    assert isinstance(clock, HandClock)

    async def revoke(at: float) -> None:
        clock.seconds = at
        await keys.revoke(record.key_id)

    async with asyncio.timeout(2):
        await asyncio.gather(revoke(1), revoke(2), revoke(3))


async def test_the_admin_key_needs_no_topic() -> None:
    keys = make()
    assert keys.authenticate(f"Bearer {ADMIN}").is_admin
    assert refusal(make(admin=""), "Bearer ")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer \u00ff\u00fe"])
async def test_other_headers_are_refused(header: str) -> None:
    refusal(make(), header)


async def test_a_wrong_secret_is_not_repeated_in_full() -> None:
    secret = "sk-somebody-elses-secret-0123456789"
    assert secret not in refusal(make(), f"Bearer {secret}")


async def test_a_key_that_nobody_has_can_not_be_revoked() -> None:
    with pytest.raises(ApiError) as caught:
        await make().revoke("key_none")
    assert caught.value.status == 404


async def test_a_change_that_kafka_does_not_take_is_told_and_forgotten() -> None:
    keys = make()
    producer = keys._producer
    assert isinstance(producer, Echo)
    producer.error = KafkaConnectionError()
    with pytest.raises(ApiError) as caught:
        await created(keys)
    assert caught.value.status == 503
    assert keys._waiters == {}


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff"])
async def test_poison_on_the_topic_is_for_the_tail_to_bury(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()._learn(Message(value))


async def test_a_tombstone_changes_nothing() -> None:
    keys = make()
    record, secret = await created(keys)
    keys._learn(Message(None))
    assert keys.authenticate(f"Bearer {secret}").key_id == record.key_id
