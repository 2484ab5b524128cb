"""Use cases: manage endpoints, turn the ends of responses into deliveries; and what they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from services.webhooks.domain.addresses import AddressRules
from services.webhooks.domain.endpoints import Delivery, Endpoint, Responses, State
from services.webhooks.domain.events import Event, EventType, payload
from services.webhooks.domain.signing import hint, new_secret
from services.webhooks.errors import (
    AddressRefusedError,
    DeliveryNotFoundError,
    EndpointNotFoundError,
    ParameterError,
    TooManyEndpointsError,
)
from services.webhooks.secrets import SecretKeeper

_OLD_SECRET_LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryQuery:
    """Which deliveries of an endpoint to list, the newest first; `after` is the id of one."""

    limit: int
    after: str | None = None
    state: State | None = None
    response_id: str | None = None


class Endpoints(Protocol):
    """Where endpoints and their deliveries are on record."""

    async def add(self, endpoint: Endpoint, *, most: int) -> bool:
        """Add an endpoint; False when its project has `most` of them."""
        ...

    async def find(self, endpoint_id: str, *, project: str) -> Endpoint | None:
        """Return an endpoint of the project."""
        ...

    async def page(self, *, project: str, limit: int, after: str | None) -> list[Endpoint]:
        """Return up to `limit` + 1 endpoints, the newest first.

        Raises `ParameterError` when the project has no endpoint `after`.
        """
        ...

    async def change(
        self, endpoint_id: str, *, project: str, to: Callable[[Endpoint], Endpoint]
    ) -> Endpoint | None:
        """Change an endpoint that nobody else changes meanwhile; None when there is none."""
        ...

    async def remove(self, endpoint_id: str, *, project: str) -> bool:
        """Forget an endpoint and its deliveries; whether there was one."""
        ...

    async def deliveries(self, endpoint_id: str, query: DeliveryQuery) -> list[Delivery]:
        """Return up to `limit` + 1 deliveries; raises `ParameterError` for an unknown `after`."""
        ...

    async def resend(self, endpoint_id: str, delivery_id: str, *, at: datetime) -> Delivery | None:
        """Make a delivery due at once, with all its attempts; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Interest:
    """What endpoints there are in the whole installation."""

    any: bool
    foreground: bool


class Inbox(Protocol):
    """Where the ends of responses become deliveries."""

    async def interest(self) -> Interest:
        """Return whether anybody wants to know, and of foreground responses too."""
        ...

    async def accept(self, events: Sequence[Event], *, at: datetime) -> int:
        """Make deliveries for all endpoints that want them; idempotent. Return the new ones."""
        ...


class Sender(Protocol):
    """Sends one webhook."""

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Return the answer, whatever its status; raises `UndeliveredError` when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered; `retry_after` is the pause that it asked for."""

    status_code: int
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller wants an endpoint to be; None leaves a field as it is."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[EventType, ...] | None = None
    responses: Responses | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class TestAnswer:
    """What came back on a test event."""

    event_type: EventType
    status_code: int


class Registry:
    """The endpoints of all projects; whoever calls has been found to be an administrator."""

    def __init__(
        self,
        endpoints: Endpoints,
        secrets: SecretKeeper,
        sender: Sender,
        *,
        rules: AddressRules,
        most: int,
    ) -> None:
        self._endpoints = endpoints
        self._secrets = secrets
        self._sender = sender
        self._rules = rules
        self._most = most

    async def create(self, new: Endpoint) -> tuple[Endpoint, str]:
        """Add an endpoint; return it with its secret, which nobody will see again.

        Raises `ParameterError` for a URL that is not allowed and `TooManyEndpointsError`.
        """
        self._check_url(new.url)
        endpoint, secret = self._with_new_secret(new)
        if not await self._endpoints.add(endpoint, most=self._most):
            raise TooManyEndpointsError(
                f"The project '{new.project}' has {self._most} webhook endpoints, "
                "as many as it may have."
            )
        return endpoint, secret

    async def find(self, endpoint_id: str, *, project: str) -> Endpoint:
        """Return an endpoint; raises `EndpointNotFoundError`."""
        endpoint = await self._endpoints.find(endpoint_id, project=project)
        if endpoint is None:
            raise EndpointNotFoundError(endpoint_id)
        return endpoint

    async def page(self, *, project: str, limit: int, after: str | None) -> list[Endpoint]:
        """Return up to `limit` + 1 endpoints, the newest first."""
        return await self._endpoints.page(project=project, limit=limit, after=after)

    async def update(self, endpoint_id: str, wish: Wish, *, project: str, at: datetime) -> Endpoint:
        """Change what is wished for; raises `ParameterError`, `EndpointNotFoundError`."""
        if wish.url is not None:
            self._check_url(wish.url)
        return await self._change(
            endpoint_id, lambda endpoint: _fulfilled(endpoint, wish, at), project=project
        )

    async def remove(self, endpoint_id: str, *, project: str) -> None:
        """Forget an endpoint; raises `EndpointNotFoundError`."""
        if not await self._endpoints.remove(endpoint_id, project=project):
            raise EndpointNotFoundError(endpoint_id)

    async def rotate_secret(
        self, endpoint_id: str, *, project: str, keep_old: bool, at: datetime
    ) -> tuple[Endpoint, str]:
        """Give an endpoint a new secret; the old one signs too for a day when it is kept."""
        made: list[str] = []

        def rotated(endpoint: Endpoint) -> Endpoint:
            old = endpoint.secret if keep_old else None
            until = at + _OLD_SECRET_LIFE if keep_old else None
            changed, secret = self._with_new_secret(endpoint)
            made.append(secret)
            return replace(changed, old_secret=old, old_secret_until=until, updated_at=at)

        endpoint = await self._change(endpoint_id, rotated, project=project)
        return endpoint, made[-1]

    async def test(
        self,
        endpoint_id: str,
        event_type: EventType | None,
        *,
        project: str,
        message_id: str,
        at: datetime,
    ) -> TestAnswer:
        """Send a sample event now, once; raises `UndeliveredError` when no answer comes."""
        endpoint = await self.find(endpoint_id, project=project)
        chosen = event_type or endpoint.event_types[0]
        body = payload(
            event_id=f"evt_test_{message_id}",
            event_type=chosen,
            response_id=f"resp_test_{message_id}",
            occurred_at=at,
        )
        signed = self._secrets.signed(endpoint, body, message_id=f"wh_test_{message_id}", at=at)
        answer = await self._sender.post(endpoint.url, body, signed)
        return TestAnswer(chosen, answer.status_code)

    async def deliveries(
        self, endpoint_id: str, query: DeliveryQuery, *, project: str
    ) -> list[Delivery]:
        """Return up to `limit` + 1 deliveries, the newest first."""
        endpoint = await self.find(endpoint_id, project=project)
        return await self._endpoints.deliveries(endpoint.id, query)

    async def resend(
        self, endpoint_id: str, delivery_id: str, *, project: str, at: datetime
    ) -> Delivery:
        """Send a delivery again, whatever became of it; raises `DeliveryNotFoundError`."""
        endpoint = await self.find(endpoint_id, project=project)
        delivery = await self._endpoints.resend(endpoint.id, delivery_id, at=at)
        if delivery is None:
            raise DeliveryNotFoundError(delivery_id)
        return delivery

    async def _change(
        self, endpoint_id: str, to: Callable[[Endpoint], Endpoint], *, project: str
    ) -> Endpoint:
        endpoint = await self._endpoints.change(endpoint_id, project=project, to=to)
        if endpoint is None:
            raise EndpointNotFoundError(endpoint_id)
        return endpoint

    def _with_new_secret(self, endpoint: Endpoint) -> tuple[Endpoint, str]:
        secret = new_secret()
        sealed = self._secrets.seal(secret, endpoint_id=endpoint.id)
        return replace(endpoint, secret=sealed, secret_hint=hint(secret)), secret

    def _check_url(self, url: str) -> None:
        try:
            self._rules.check_url(url)
        except AddressRefusedError as error:
            raise ParameterError(
                "url", f"Invalid value for 'url': {error}.", code="invalid_url"
            ) from error


def _fulfilled(endpoint: Endpoint, wish: Wish, at: datetime) -> Endpoint:
    changed = replace(
        endpoint,
        name=endpoint.name if wish.name is None else wish.name,
        url=wish.url or endpoint.url,
        event_types=wish.event_types or endpoint.event_types,
        responses=wish.responses or endpoint.responses,
        enabled=endpoint.enabled if wish.enabled is None else wish.enabled,
    )
    if changed == endpoint:
        return endpoint
    if changed.enabled != endpoint.enabled:
        changed = replace(changed, disabled_reason=None if changed.enabled else "disabled by hand")
    # A new address, or a new start, is not judged by what the old one did.
    return replace(changed, failures=0, paused_until=None, updated_at=at)
