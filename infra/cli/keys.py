"""`antiphon keys`: API keys of the running stack, over its HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from contracts.config import Scope
from infra.cli.api import call
from infra.cli.output import err, out, show, table_of
from infra.local.errors import StackError
from infra.local.settings import LocalSettings

_PAGE = 1_000


@Parameter(name="*")
@dataclass(frozen=True)
class KeyOptions:
    """What a key may have beside its name.

    Parameters
    ----------
    scope
        What it may do, `api` when not given; may be repeated.
    project
        Whose costs and responses it sees, `default` when not given.
    user
        To whom all its costs belong.
    expires
        When it ends: a date or time such as 2027-01-31 or 2027-01-31T12:00:00+01:00, in UTC when
        it doesn't say.
    model
        A model it may ask, or a prefix that ends in `*`; all when not given; may be repeated.
    requests_per_minute
        Most requests per minute.
    tokens_per_minute
        Most tokens per minute.
    """

    scope: Annotated[list[Scope] | None, Parameter(negative="")] = None
    project: str | None = None
    user: str | None = None
    expires: str | None = None
    model: Annotated[list[str] | None, Parameter(negative="")] = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def body(self) -> dict[str, Any]:
        """Return the fields that were given; raises `StackError` when `expires` is no time."""
        fields = {
            "scopes": self.scope,
            "project": self.project,
            "user": self.user,
            "expires_at": None if self.expires is None else _seconds(self.expires),
            "allowed_models": self.model,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
        }
        return {name: value for name, value in fields.items() if value is not None}


def create(name: str, /, *, options: KeyOptions | None = None) -> int:
    """Create a key and print it; it can't be shown again.

    Parameters
    ----------
    name
        What the key is for, as lists and cost reports show it.
    """
    body = {"name": name, **(options or KeyOptions()).body()}
    key = _call("POST", "/v1/keys", body=body)
    err.print(f"{key['id']}, shown this once:")
    out.print(key["key"], markup=False)
    return 0


def list_keys(
    *,
    project: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """List all keys; of each only the prefix is known.

    Parameters
    ----------
    project
        Only those of this project.
    as_json
        One JSON array for programs.
    """
    found = [key for key in _all() if project in (None, key["project"])]
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    table = table_of(
        *("id", "name", "project", "user", "prefix", "scopes", "state"),
        *("expires", "models", "req/min", "tokens/min"),
    )
    for key in found:
        table.add_row(*(escape(cell) for cell in _row(key)))
    show(table)
    return 0


def rotate(key_id: str, /, *, grace_seconds: int = 0) -> int:
    """Give a key a new secret and print it; it can't be shown again.

    Parameters
    ----------
    key_id
        Which key.
    grace_seconds
        How long the old secret stays good, so that clients can be changed one by one.
    """
    key = _call("POST", f"/v1/keys/{key_id}/rotate", body={"grace_seconds": grace_seconds})
    err.print(f"{key['id']}, shown this once:")
    out.print(key["key"], markup=False)
    return 0


def revoke(key_id: str, /) -> int:
    """Revoke a key, by its id; requests with it are refused from then on."""
    _call("DELETE", f"/v1/keys/{key_id}")
    out.print(f"{key_id} is revoked.", markup=False)
    return 0


def _call(method: str, path: str, *, body: dict[str, Any] | None = None) -> dict[str, Any]:
    return asyncio.run(call(LocalSettings.load(), method, path, body=body))


def _all() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = _call("GET", f"/v1/keys?limit={_PAGE}{after}")
        found += answer["data"]
        if not answer["has_more"]:
            return found
        after = f"&after={answer['last_id']}"


def _row(key: Mapping[str, Any]) -> list[str]:
    models = key["allowed_models"]
    cells = [
        key["id"],
        key["name"],
        key["project"],
        key["user"],
        key["prefix"],
        ", ".join(key["scopes"]),
        key["status"],
        _time(key["expires_at"]),
        "all" if models is None else ", ".join(models),
        key["requests_per_minute"],
        key["tokens_per_minute"],
    ]
    # A key is one line, whatever its name is.
    return ["" if cell is None else " ".join(str(cell).split()) for cell in cells]


def _time(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(given: str) -> int:
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise StackError(
            f"--expires {given} is no time", fix="Write for example 2027-01-31"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
