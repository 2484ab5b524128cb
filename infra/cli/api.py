"""Calls from the command line to intake's HTTP API."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import aiohttp

from infra.cli.up import admin_key
from infra.local.errors import StackError
from infra.local.settings import LocalSettings
from infra.local.state import running

TIMEOUT = aiohttp.ClientTimeout(total=30)


def base_url(settings: LocalSettings) -> str:
    """Origin of the running stack, else where one would answer."""
    status = running(settings.home)
    return status.url if status else settings.url


async def call(
    settings: LocalSettings, method: str, path: str, *, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Send one request with the admin key and give the JSON answer; raises StackError."""
    url = base_url(settings) + path
    headers = {"authorization": f"Bearer {admin_key(settings)}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=TIMEOUT) as session,
            session.request(method, url, json=body) as answer,
        ):
            content: dict[str, Any] = await answer.json(content_type=None) or {}
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise StackError(
            f"Nothing answers at {url}", fix="Start the stack with `antiphon up`"
        ) from error
    if answer.status >= HTTPStatus.BAD_REQUEST:
        message = (content.get("error") or {}).get("message") or f"HTTP {answer.status}"
        raise StackError(f"{method} {path} was refused: {message}", fix="Correct it and try again")
    return content
