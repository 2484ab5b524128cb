"""Secrets of a local stack: made once, kept in its home where only its owner can read them."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "credentials.json"


def admin_key() -> str:
    """Make a new API key, `sk-antiphon-` and 43 URL-safe characters (256 random bits)."""
    return f"sk-antiphon-{secrets.token_urlsafe(32)}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the parts of one stack trust each other by."""

    admin_key: str = field(default_factory=admin_key, repr=False)
    internal_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    seal_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    postgres_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10), repr=False)
    s3_secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)

    @classmethod
    def of(cls, home: Path) -> Credentials:
        """Read those of `home`, making and storing them (mode 0600) on the first call."""
        file = home / FILE
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        made = cls(**kept)
        if asdict(made) == kept:
            return made
        # A home that is older than one of the secrets gets that one now.
        home.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(made), indent=2), encoding="utf-8")
        draft.replace(file)
        return made
