"""API keys: made here, kept as hashes on a compacted topic, checked in memory."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from aiokafka.errors import KafkaError

from contracts.config import ApiKeyChangedV1, Scope
from contracts.topics import CONFIG_CHANGED
from services.intake.errors import ApiError, unauthorized, unavailable
from services.kit.clock import Clock
from services.kit.codec import Stamp, decode, encode
from services.kit.deadletters import DeadLetters, Record
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.kit.tail import Tail

SECRET_PREFIX = "sk-antiphon-"  # noqa: S105 - what every secret starts with
_VISIBLE = len(SECRET_PREFIX) + 6
_APPLY_SECONDS = 5.0
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

    @property
    def is_admin(self) -> bool:
        """Whether the key may manage the installation."""
        return "admin" in self.scopes


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """Every key of the installation, by the hash of its secret.

    Changes go to `config.changed` and come back from there, at this replica as at all others, so a
    revoked key is refused everywhere within milliseconds and no request asks a database.
    """

    def __init__(self, producer: Producer, clock: Clock, *, admin_secret: str) -> None:
        self._producer = producer
        self._clock = clock
        self._by_hash: dict[str, ApiKey] = {}
        self._records: dict[str, ApiKeyChangedV1] = {}
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._admin_hash = _hash(admin_secret) if admin_secret else None
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
        digest = _hash(secret)
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
        return key

    async def create(
        self,
        *,
        name: str,
        project: str,
        user: str | None,
        scopes: tuple[Scope, ...],
        expires_at: datetime | None,
    ) -> tuple[ApiKeyChangedV1, str]:
        """Make a key; return its record and the secret, which is shown this once."""
        secret = SECRET_PREFIX + secrets.token_urlsafe(32)
        record = ApiKeyChangedV1(
            key_id=new_id("key"),
            name=name,
            prefix=secret[:_VISIBLE],
            secret_sha256=_hash(secret),
            project=project,
            user=user,
            scopes=scopes,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        await self._publish(record)
        return record, secret

    async def revoke(self, key_id: str) -> ApiKeyChangedV1:
        """Revoke a key for ever; raises `ApiError` (404) when there is none. Idempotent."""
        record = self._records.get(key_id)
        if record is None:
            raise ApiError(404, f"No API key with id '{key_id}'.")
        if record.revoked_at is None:
            record = record.model_copy(update={"revoked_at": self._clock.now()})
            await self._publish(record)
        return record

    def list(self) -> list[ApiKeyChangedV1]:
        """Return all keys, the oldest first, revoked ones included."""
        return sorted(self._records.values(), key=lambda record: record.created_at)

    async def _publish(self, record: ApiKeyChangedV1) -> None:
        """Write a change and return once this replica obeys it."""
        subject = f"api_key/{record.key_id}"
        event_id = new_id("evt")
        stamp = Stamp(event_id=event_id, source="/intake", subject=subject, time=self._clock.now())
        waiter = self._waiters[event_id] = asyncio.get_running_loop().create_future()
        try:
            await self._producer.send(CONFIG_CHANGED.name, encode(record, stamp), key=subject)
            async with asyncio.timeout(_APPLY_SECONDS):
                await waiter
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
        self._records[data.key_id] = data
        self._by_hash[data.secret_sha256] = ApiKey(
            data.key_id, data.project, data.user, data.scopes, data.revoked_at, data.expires_at
        )
        waiter = self._waiters.get(envelope.id)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
