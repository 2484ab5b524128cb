"""API keys: made here, kept as hashes on a compacted topic, checked in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiokafka.errors import KafkaError

from contracts.config import ApiKeyChangedV1, Scope
from contracts.topics import CONFIG_CHANGED
from services.intake.admission import records
from services.intake.admission.limits import Limits
from services.intake.errors import ApiError, unauthorized, unavailable
from services.kit.clock import Clock
from services.kit.codec import Stamp, decode, encode
from services.kit.deadletters import DeadLetters, Record
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.kit.tail import Tail

SECRET_PREFIX = records.SECRET_PREFIX
_APPLY_SECONDS = 5.0
_TRIES = 5
DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who a request comes from."""

    key_id: str
    project: str
    user: str | None
    scopes: tuple[Scope, ...]
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    allowed_models: tuple[str, ...] | None = None
    limits: Limits | None = None
    replaced_until: datetime | None = None
    """Set when the secret is one that the key had before: until when it is good."""

    @property
    def is_admin(self) -> bool:
        """Whether the key may manage the installation."""
        return "admin" in self.scopes

    def allows(self, model: str) -> bool:
        """Whether the key may ask this model, by the name that its client gave."""
        return self.allowed_models is None or any(
            model.startswith(name[:-1]) if name.endswith("*") else model == name
            for name in self.allowed_models
        )


class ApiKeys:
    """Every key of the installation, by the hash of its secret.

    Changes go to `config.changed` and come back from there, at this replica as at all others, so a
    revoked key is refused everywhere within milliseconds and no request asks a database.
    """

    def __init__(
        self, producer: Producer, clock: Clock, *, admin_secret: str, most: int = 100_000
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._most = most
        self._by_hash: dict[str, ApiKey] = {}
        self._records: dict[str, ApiKeyChangedV1] = {}
        self._waiters: dict[str, asyncio.Future[bool]] = {}
        self._admin_hash = records.hash_of(admin_secret) if admin_secret else None
        self._admin = ApiKey("key_admin", DEFAULT_PROJECT, None, ("api", "admin"))

    def tail(self, bootstrap: str, *, dead_letters: DeadLetters) -> Tail:
        """Return the tail that learns of changes; the caller starts and stops it."""
        return Tail(
            bootstrap,
            topic=CONFIG_CHANGED.name,
            partitions=[0],
            on_record=self._learn,
            dead_letters=dead_letters,
            start="earliest",
        )

    def authenticate(self, authorization: str) -> ApiKey:
        """Return the key of an `Authorization` header; raises `ApiError` (401)."""
        secret = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
        if not secret:
            raise unauthorized(
                "You didn't provide an API key. Send it in an Authorization header: "
                "'Authorization: Bearer YOUR_KEY'."
            )
        digest = records.hash_of(secret)
        if digest == self._admin_hash:
            return self._admin
        key = self._by_hash.get(digest)
        if key is None:
            shown = f"{secret[:8]}...{secret[-4:]}" if len(secret) > 16 else "..."
            raise unauthorized(f"Incorrect API key provided: {shown}.")
        if key.revoked_at is not None:
            raise unauthorized("This API key has been revoked.")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise unauthorized("This API key has expired.")
        if key.replaced_until is not None and key.replaced_until <= self._clock.now():
            raise unauthorized("This API key has been rotated: use its new secret.")
        return key

    def limits_of(self, key_id: str) -> Limits | None:
        """Return the limits that a key has now, None when it has none or is not known."""
        record = self._records.get(key_id)
        return None if record is None else _limits(record)

    async def create(
        self, *, name: str, project: str, user: str | None = None, **fields: Any
    ) -> tuple[ApiKeyChangedV1, str]:
        """Make a key; return its record and the secret, which is shown this once.

        `fields` are further ones of `records.CHANGEABLE`. Raises `ApiError`: 409 when there are as
        many keys as this server keeps in memory, 503.
        """
        if len(self._records) >= self._most:
            raise ApiError(
                409, f"There are {self._most} keys, which is the most.", code="too_many_keys"
            )
        secret = records.new_secret()
        record = records.created(
            secret, project=project, now=self._clock.now(), name=name, user=user, **fields
        )
        await self._publish(record)
        return record, secret

    def get(self, key_id: str) -> ApiKeyChangedV1:
        """Return the record of a key; raises `ApiError` (404)."""
        record = self._records.get(key_id)
        if record is None:
            raise ApiError(404, f"No API key with id '{key_id}'.", code="key_not_found")
        return record

    async def update(self, key_id: str, fields: Mapping[str, Any]) -> ApiKeyChangedV1:
        """Set some of `records.CHANGEABLE`; raises `ApiError` (404, 409 when revoked, 503)."""
        return await self._change(key_id, lambda record: records.changed(record, fields))

    async def rotate(self, key_id: str, *, grace_seconds: int) -> tuple[ApiKeyChangedV1, str]:
        """Give a key a new secret; the one it has is good for `grace_seconds` more.

        Return the record and the secret, which is shown this once; raises as `update` does.
        """
        secret = records.new_secret()
        record = await self._change(
            key_id,
            lambda record: records.rotated(
                record, secret, now=self._clock.now(), grace_seconds=grace_seconds
            ),
        )
        return record, secret

    async def revoke(self, key_id: str) -> ApiKeyChangedV1:
        """Revoke a key for ever; raises `ApiError` (404 when there is none, 503). Idempotent."""
        return await self._change(
            key_id, lambda record: records.revoked(record, now=self._clock.now())
        )

    def list(self) -> list[ApiKeyChangedV1]:
        """Return all keys, the oldest first, revoked ones included."""
        return sorted(self._records.values(), key=lambda record: record.created_at)

    async def _change(
        self, key_id: str, change: Callable[[ApiKeyChangedV1], ApiKeyChangedV1]
    ) -> ApiKeyChangedV1:
        """Change a record; one that another replica changed meanwhile is changed from there."""
        for _ in range(_TRIES):
            known = self.get(key_id)
            record = change(known)
            if record is known or await self._publish(record):
                return record
            await self._restate(key_id)
        raise _busy(key_id)

    async def _restate(self, key_id: str) -> None:
        """Put what counts after what came too late: compaction keeps the last message only."""
        for _ in range(_TRIES):
            if await self._publish(records.restated(self.get(key_id))):
                return
        raise _busy(key_id)

    async def _publish(self, record: ApiKeyChangedV1) -> bool:
        """Write a change and return once this replica has read it, and whether it counts."""
        subject = f"api_key/{record.key_id}"
        event_id = new_id("evt")
        stamp = Stamp(event_id=event_id, source="/intake", subject=subject, time=self._clock.now())
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[event_id] = waiter
        try:
            await self._producer.send(CONFIG_CHANGED.name, encode(record, stamp), key=subject)
            async with asyncio.timeout(_APPLY_SECONDS):
                return await waiter
        except KafkaError as error:
            raise unavailable("The change could not be made durable, try again.") from error
        except TimeoutError as error:
            raise unavailable("The change is stored but not in force yet.") from error
        finally:
            del self._waiters[event_id]

    def _learn(self, record: Record) -> None:
        if record.value is None:
            return
        envelope = decode(record.value)
        data = envelope.data
        if not isinstance(data, ApiKeyChangedV1):
            return
        known = self._records.get(data.key_id)
        for digest, _ in _secrets(known) if known is not None else ():
            self._by_hash.pop(digest, None)
        counts = self._records[data.key_id] = records.merged(known, data)
        self._by_hash.update(_secrets(counts))
        waiter = self._waiters.get(envelope.id)
        if waiter is not None and not waiter.done():
            waiter.set_result(counts is data)


def _busy(key_id: str) -> ApiError:
    return ApiError(
        409, f"The API key '{key_id}' is being changed by others, try again.", code="key_busy"
    )


def _secrets(record: ApiKeyChangedV1) -> Iterator[tuple[str, ApiKey]]:
    """Yield what each secret of a key, by its hash, stands for."""
    key = ApiKey(
        record.key_id,
        record.project,
        record.user,
        record.scopes,
        record.revoked_at,
        record.expires_at,
        record.allowed_models,
        _limits(record),
    )
    for old in record.replaced:
        yield old.secret_sha256, replace(key, replaced_until=old.expires_at)
    yield record.secret_sha256, key


def _limits(record: ApiKeyChangedV1) -> Limits | None:
    if record.requests_per_minute is None and record.tokens_per_minute is None:
        return None
    return Limits(record.requests_per_minute, record.tokens_per_minute)
