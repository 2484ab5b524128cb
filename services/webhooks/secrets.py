"""Signing secrets of endpoints: sealed where they are stored, opened to sign."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from services.webhooks.domain.endpoints import Endpoint
from services.webhooks.domain.signing import headers
from services.webhooks.errors import SecretLostError

_SEAL_KIND = "webhook secret"


class Sealing(Protocol):
    """Keeps secrets unreadable in the database; see `services.kit.seal.Sealer`."""

    def seal(self, text: str, *, owner: str, kind: str) -> str:
        """Return the text sealed for its owner and kind."""
        ...

    def open(self, sealed: str, *, owner: str, kind: str) -> str:
        """Return what was sealed; raises `ValueError`."""
        ...


class SecretKeeper:
    """Opens and seals the signing secrets of endpoints."""

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing

    def seal(self, secret: str, *, endpoint_id: str) -> str:
        """Return the secret as it is stored."""
        return self._sealing.seal(secret, owner=endpoint_id, kind=_SEAL_KIND)

    def in_force(self, endpoint: Endpoint, at: datetime) -> list[str]:
        """Return the secrets that sign for an endpoint at a time, the newest first.

        Raises `SecretLostError` when none of the installation's secrets opens them.
        """
        sealed = [endpoint.secret]
        if endpoint.old_secret and endpoint.old_secret_until and at < endpoint.old_secret_until:
            sealed.append(endpoint.old_secret)
        try:
            return [self._sealing.open(one, owner=endpoint.id, kind=_SEAL_KIND) for one in sealed]
        except ValueError as error:
            raise SecretLostError(
                "the signing secret can't be opened with the secrets of this installation; "
                "rotate it"
            ) from error

    def signed(
        self, endpoint: Endpoint, body: bytes, *, message_id: str, at: datetime
    ) -> dict[str, str]:
        """Return the headers of one attempt; raises `SecretLostError`."""
        secrets = self.in_force(endpoint, at)
        return headers(body, message_id=message_id, at=at, secrets_in_force=secrets)
