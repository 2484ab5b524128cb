"""Intake's settings, from variables that start with INTAKE_."""

from __future__ import annotations

import socket
import zlib
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from contracts.providers import Dialect, Providers, load_providers, single_provider
from contracts.topics import RESPONSES_EVENTS
from services.kit.settings import ServiceSettings, shared

_CUT_OFF_SECONDS = 10.0


class IntakeSettings(ServiceSettings):
    """Where to listen, whom to ask, and the bounds of what is accepted."""

    model_config = SettingsConfigDict(env_prefix="INTAKE_", extra="ignore", frozen=True)

    port: int = Field(8080, ge=0, le=65535)
    antiphon_admin_key: SecretStr = shared(SecretStr(""))
    antiphon_providers: Path = shared(Path("infra/local/providers.toml"))
    upstream_base_url: str | None = shared(None)
    upstream_dialect: Dialect = shared("responses")
    upstream_api_key: SecretStr = shared(SecretStr(""))
    artifacts_url: str | None = None
    costs_url: str | None = None
    mcp_broker_url: str | None = None
    webhooks_url: str | None = None
    events_partition: int | None = Field(None, ge=0, lt=RESPONSES_EVENTS.partitions)
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    max_open_requests: int = Field(10_000, ge=1)
    max_bodies_bytes: int = Field(128 * 1024 * 1024, ge=1024)
    fair_share_from: float = Field(0.8, gt=0, le=1)
    max_buffered_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    max_stream_buffer_bytes: int = Field(4 * 1024 * 1024, ge=64 * 1024)
    max_log_reads: int = Field(32, ge=1)
    response_timeout_seconds: float = Field(1_800.0, gt=0)
    accept_timeout_seconds: float = Field(10.0, gt=0)
    projection_wait_seconds: float = Field(5.0, gt=0)
    heartbeat_seconds: float = Field(15.0, gt=0)
    drain_delay_seconds: float = Field(0.0, ge=0)
    drain_seconds: float = Field(10.0, ge=0)
    stall_seconds: float = Field(60.0, gt=0)
    max_websockets: int = Field(1_000, ge=0)
    websocket_seconds: float = Field(3_600.0, gt=0)
    websocket_ping_seconds: float = Field(20.0, gt=0)
    websocket_context_bytes: int = Field(256 * 1024 * 1024, ge=0)
    idempotency_seconds: float = Field(86_400.0, gt=0)
    max_chain: int = Field(1_000, ge=1)
    max_request_files: int = Field(50, ge=1, le=1000)
    max_request_file_bytes: int = Field(50 * 1024 * 1024, ge=1)
    max_history_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    limit_timeout_seconds: float = Field(0.5, gt=0)
    limit_pause_seconds: float = Field(2.0, ge=0)
    limit_output_tokens: int = Field(1_000, ge=0)
    limit_debt_minutes: float = Field(10.0, ge=0)
    limit_reservation_hours: float = Field(24.0, gt=0)
    max_keys: int = Field(100_000, ge=1)
    max_key_grace_seconds: int = Field(7 * 86_400, ge=0)

    @property
    def stop_seconds(self) -> float:
        """As long as the answers under way may take, and a little more."""
        drain = self.drain_delay_seconds + self.drain_seconds
        return max(self.shutdown_seconds, drain + _CUT_OFF_SECONDS)

    def preferred_partition(self) -> int:
        """Return the partition of `responses.events` to read if it is free, or was given."""
        if self.events_partition is not None:
            return self.events_partition
        return zlib.crc32(socket.gethostname().encode()) % RESPONSES_EVENTS.partitions

    def providers(self) -> Providers:
        """Return the upstreams; raises `ProvidersFileError` when the file can't be used."""
        if self.upstream_base_url:
            return single_provider(
                base_url=self.upstream_base_url,
                dialect=self.upstream_dialect,
                api_key_env="UPSTREAM_API_KEY",
            )
        return load_providers(self.antiphon_providers)

    def check(self) -> None:
        """Read the files that are named, too; raises `ProvidersFileError`."""
        self.providers()
