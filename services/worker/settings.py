"""The worker's settings, from variables that start with WORKER_."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from contracts.providers import Dialect, Providers, load_providers, single_provider
from services.kit.settings import ServiceSettings, shared

_CUT_OFF_SECONDS = 10.0


class WorkerSettings(ServiceSettings):
    """Where the upstreams are, and how much one worker takes on at once."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True)

    antiphon_providers: Path = shared(Path("infra/local/providers.toml"))
    upstream_base_url: str | None = shared(None)
    upstream_dialect: Dialect = shared("responses")
    upstream_api_key: SecretStr = shared(SecretStr(""))
    antiphon_seal_secret: SecretStr = shared(SecretStr(""))
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=200)
    max_responses: int = Field(2_000, ge=1)
    max_background: int = Field(500, ge=1)
    background_per_key: int = Field(200, ge=1)
    background_overdue_seconds: float = Field(3_600.0, gt=0)
    background_poll_seconds: float = Field(1.0, gt=0)
    batch_records: int = Field(100, ge=1, le=1_000)
    lease_seconds: float = Field(10.0, gt=1)
    sweep_seconds: float = Field(2.0, gt=0)
    tick_ms: float = Field(5.0, ge=0, le=1_000)
    max_log_reads: int = Field(16, ge=1)
    pending_bytes: int = Field(16 * 1024 * 1024, ge=1024 * 1024)
    max_file_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024)
    max_event_bytes: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    max_response_bytes: int = Field(128 * 1024 * 1024, ge=1024 * 1024)
    drain_seconds: float = Field(10.0, ge=0)
    max_attempts: int = Field(8, ge=1, le=100)
    max_turns: int = Field(32, ge=1, le=1_000)
    tool_timeout_seconds: float = Field(60.0, gt=0)
    results_partition: int | None = Field(None, ge=0)

    @property
    def stop_seconds(self) -> float:
        """As long as the responses that run may take, and a little more."""
        return max(self.shutdown_seconds, self.drain_seconds + _CUT_OFF_SECONDS)

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
