"""What the broker can be told: `MCP_BROKER_...`."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.kit.settings import ServiceSettings
from services.mcp_broker.servers_file import ServerConfig, read_servers

_CUT_OFF_SECONDS = 10.0


class McpBrokerSettings(ServiceSettings):
    """Settings of the MCP broker; sizes in bytes, times in seconds.

    `servers` is the file of MCP servers, validated with the rest. `max_call_seconds` bounds a call
    whatever its deadline says. A call of a crashed broker is run again after `lease_seconds`.
    """

    model_config = SettingsConfigDict(env_prefix="MCP_BROKER_", extra="ignore", frozen=True)

    servers: Path = Field(Path("infra/local/mcp_servers.toml"), validate_default=True)
    max_records: int = Field(200, ge=1, le=1000)
    lease_seconds: float = Field(15.0, ge=0.3, le=600)
    max_call_seconds: float = Field(600.0, gt=0, le=3600)
    retention_hours: float = Field(24.0, gt=0)
    purge_seconds: float = Field(300.0, gt=0)
    # In JSON a byte may take six; a result must fit into one message of 4 MiB whatever it says.
    output_max_bytes: int = Field(256 * 1024, ge=1024, le=384 * 1024)
    content_max_bytes: int = Field(1024 * 1024, ge=1024, le=1280 * 1024)
    drain_seconds: float = Field(8.0, ge=0)
    stuck_seconds: float = Field(60.0, gt=0)

    @field_validator("servers")
    @classmethod
    def _servers_are_valid(cls, path: Path) -> Path:
        _read(path)
        return path

    @property
    def stop_seconds(self) -> float:
        """As long as the calls under way may take, and a little more."""
        return max(self.shutdown_seconds, self.drain_seconds + _CUT_OFF_SECONDS)

    def read_servers(self) -> tuple[ServerConfig, ...]:
        """Return the servers of the file; raises `ServersFileError`."""
        return _read(self.servers)


def _read(path: Path) -> tuple[ServerConfig, ...]:
    # The file names variables of its own choice, so they can't be fields of the settings.
    return read_servers(path, os.environ)  # noqa: TID251
