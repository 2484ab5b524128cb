"""Text that clients keep for us: sealed so that nobody else reads it, changes it or makes it up."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PREFIX = "antiphon1."
"""What every sealed text starts with; the digit is the version of the format."""
_NONCE_BYTES = 12
_KEY_BYTES = 32


class SealError(ValueError):
    """A text was not sealed here, for this owner and kind, or was changed since."""


class Sealer:
    """Seals with AES-256-GCM (NIST SP 800-38D); each owner has a key of its own (HKDF, RFC 5869).

    `secrets` are the secrets of the installation: the first seals, all of them open, so that a new
    one can be put in front of the old.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets if secret)

    @property
    def able(self) -> bool:
        """Whether there is a secret to seal with."""
        return bool(self._secrets)

    def seal(self, text: str, *, owner: str, kind: str) -> str:
        """Return the sealed text, ASCII; only `open` with the same owner and kind reads it.

        Raises `SealError` without a secret.
        """
        if not self._secrets:
            raise SealError("there is no secret to seal with")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(self._secrets[0], owner).encrypt(nonce, text.encode(), kind.encode())
        return PREFIX + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, *, owner: str, kind: str) -> str:
        """Return the text that was sealed for this owner and kind; raises `SealError`."""
        try:
            raw = base64.b64decode(
                sealed.removeprefix(PREFIX).encode("ascii"), altchars=b"-_", validate=True
            )
        except (UnicodeEncodeError, binascii.Error) as error:
            raise SealError("a sealed text was damaged") from error
        nonce, rest = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        for secret in self._secrets:
            try:
                return _cipher(secret, owner).decrypt(nonce, rest, kind.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        raise SealError("a sealed text was not made here for this owner")


def is_sealed(text: object) -> bool:
    """Whether a text claims to be sealed here; only `Sealer.open` knows."""
    return isinstance(text, str) and text.startswith(PREFIX)


def _cipher(secret: bytes, owner: str) -> AESGCM:
    derivation = HKDF(
        algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=b"antiphon seal\0" + owner.encode()
    )
    return AESGCM(derivation.derive(secret))
