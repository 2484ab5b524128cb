"""The file that says which MCP servers there are: TOML, with secrets taken from the environment."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.mcp_broker.errors import ServersFileError

_EXPANDED = ("command", "args", "env", "url", "headers")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")
_SHORTEST_SECRET = 6
MAX_SERVERS = 200

Seconds = Annotated[float, Field(gt=0, le=3600)]


class ServerConfig(BaseModel):
    """One `[[servers]]` table.

    A stdio server gets `env` and a handful of harmless variables (PATH, HOME, USER, SHELL, TERM,
    LOGNAME) and nothing else of the broker's environment. `allowed_tools` None offers all tools.
    `max_concurrency` calls run at once and `max_waiting` more wait; further ones are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    transport: Literal["stdio", "streamable_http", "sse"]
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    url: str | None = Field(None, pattern=r"^https?://[^/]")
    headers: dict[str, str] = Field(default_factory=dict)
    allowed_tools: tuple[str, ...] | None = None
    connect_timeout_seconds: Seconds = 30.0
    call_timeout_seconds: Seconds = 120.0
    health_seconds: Seconds = 15.0
    max_concurrency: int = Field(16, ge=1, le=1000)
    max_waiting: int = Field(256, ge=0, le=10_000)

    @model_validator(mode="after")
    def _fits_its_transport(self) -> Self:
        over_http = self.transport != "stdio"
        needed, foreign = ("url", ("command", "args", "env")) if over_http else _STDIO_KEYS
        if not getattr(self, needed):
            raise ValueError(f"transport {self.transport!r} needs {needed!r}")
        if unfit := [name for name in foreign if getattr(self, name)]:
            raise ValueError(f"transport {self.transport!r} has no {unfit[0]!r}")
        return self

    def redact(self, text: str) -> str:
        """Return `text` without the values that may be secrets of this server."""
        values = [*self.env.values(), *self.headers.values()]
        if self.url and "?" in self.url:
            values.append(self.url.partition("?")[2])
        for value in values:
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, "***")
        return text


_STDIO_KEYS = ("command", ("url", "headers"))


def read_servers(path: Path, environment: Mapping[str, str]) -> tuple[ServerConfig, ...]:
    """Parse and validate the file; raises `ServersFileError`.

    `${NAME}` and `${NAME:-default}` in command, args, env, url and headers are replaced from
    `environment`; `$$` stands for one dollar sign.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ServersFileError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # TOML's own errors name the line, and bad UTF-8 is one too
        raise ServersFileError(f"{path}: {error}") from error
    if unknown := set(document) - {"servers"}:
        raise ServersFileError(f"{path}: {min(unknown)}: unknown key, only [[servers]] is known")
    tables = document.get("servers", [])
    if not isinstance(tables, list) or len(tables) > MAX_SERVERS:
        raise ServersFileError(f"{path}: servers: not a list of at most {MAX_SERVERS} tables")
    servers = tuple(
        _server(table, f"{path}: servers[{index}]", environment)
        for index, table in enumerate(tables)
    )
    seen: set[str] = set()
    for index, server in enumerate(servers):
        if server.label in seen:
            raise ServersFileError(f"{path}: servers[{index}].label: {server.label!r} is taken")
        seen.add(server.label)
    return servers


def _server(table: object, place: str, environment: Mapping[str, str]) -> ServerConfig:
    if not isinstance(table, dict):
        raise ServersFileError(f"{place}: not a table")
    fields = {
        key: _expand(value, f"{place}.{key}", environment) if key in _EXPANDED else value
        for key, value in table.items()
    }
    try:
        return ServerConfig.model_validate(fields)
    except ValidationError as error:
        # Never the input itself: it may hold an expanded secret.
        mistake = error.errors(include_input=False, include_url=False)[0]
        key = "".join(f".{part}" for part in mistake["loc"])
        reason = mistake["msg"].removeprefix("Value error, ")
        raise ServersFileError(f"{place}{key}: {reason}") from None


def _expand(value: Any, place: str, environment: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_expand(item, f"{place}[{at}]", environment) for at, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _expand(item, f"{place}.{key}", environment) for key, item in value.items()}
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        dollar, name, default = match.groups()
        if dollar:
            return "$"
        found = environment.get(name, default)
        if found is None:
            raise ServersFileError(f"{place}: the environment variable {name} is not set")
        return found

    return _VARIABLE.sub(replacement, value)
