"""`antiphon keys`: API keys of the running stack, over its HTTP API."""

from __future__ import annotations

import asyncio

from rich.table import Table

from infra.cli.api import call
from infra.cli.output import err, out
from infra.local.settings import LocalSettings


def create(name: str, /, *, scope: list[str] | None = None) -> int:
    """Create a key and print it; it can't be shown again.

    Parameters
    ----------
    name
        What the key is for, as lists and cost reports show it.
    scope
        What it may do, such as `admin`; may be repeated.
    """
    body = {"name": name, "scopes": scope or []}
    key = asyncio.run(call(LocalSettings.load(), "POST", "/v1/keys", body=body))
    err.print(f"{key['id']}, shown this once:")
    out.print(key["key"], markup=False)
    return 0


def list_keys() -> int:
    """List all keys; of each only the prefix is known."""
    answer = asyncio.run(call(LocalSettings.load(), "GET", "/v1/keys"))
    table = Table("id", "name", "prefix", "scopes", "revoked", box=None)
    for key in answer["data"]:
        scopes = ", ".join(key.get("scopes") or [])
        revoked = str(key.get("revoked_at") or "")
        table.add_row(key["id"], key["name"], key["prefix"], scopes, revoked)
    out.print(table)
    return 0


def revoke(key_id: str, /) -> int:
    """Revoke a key, by its id; requests with it are refused from then on."""
    asyncio.run(call(LocalSettings.load(), "DELETE", f"/v1/keys/{key_id}"))
    out.print(f"{key_id} is revoked.")
    return 0
