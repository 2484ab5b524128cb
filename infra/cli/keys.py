"""`antiphon keys`: API keys of the running stack, over its HTTP API."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter

from contracts.config import Scope
from infra.cli.api import call
from infra.cli.output import err, out, show, table_of
from infra.local.settings import LocalSettings


def create(
    name: str,
    /,
    *,
    scope: Annotated[list[Scope] | None, Parameter(negative="")] = None,
    project: str | None = None,
) -> int:
    """Create a key and print it; it can't be shown again.

    Parameters
    ----------
    name
        What the key is for, as lists and cost reports show it.
    scope
        What it may do, `api` when not given; may be repeated.
    project
        Whose costs and responses it sees, `default` when not given.
    """
    body: dict[str, Any] = {"name": name, "scopes": scope or ["api"]}
    if project:
        body["project"] = project
    key = asyncio.run(call(LocalSettings.load(), "POST", "/v1/keys", body=body))
    err.print(f"{key['id']}, shown this once:")
    out.print(key["key"], markup=False)
    return 0


def list_keys() -> int:
    """List all keys; of each only the prefix is known."""
    answer = asyncio.run(call(LocalSettings.load(), "GET", "/v1/keys"))
    table = table_of("id", "name", "project", "prefix", "scopes", "state")
    for key in answer["data"]:
        state = "revoked" if key["revoked_at"] else "active"
        scopes = ", ".join(key["scopes"])
        table.add_row(key["id"], key["name"], key["project"], key["prefix"], scopes, state)
    show(table)
    return 0


def revoke(key_id: str, /) -> int:
    """Revoke a key, by its id; requests with it are refused from then on."""
    asyncio.run(call(LocalSettings.load(), "DELETE", f"/v1/keys/{key_id}"))
    out.print(f"{key_id} is revoked.")
    return 0
