"""What the environment tells the local stack; names without a prefix, as in the README."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.local.errors import StackError

CHECKOUT = Path(__file__).resolve().parents[2]


class LocalSettings(BaseSettings):
    """The local stack's own settings; services read theirs from the same environment."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    antiphon_home: Path = CHECKOUT / ".antiphon"
    antiphon_downloads: Path | None = None
    antiphon_host: str = "127.0.0.1"
    antiphon_port: int = Field(8080, ge=1, le=65535)
    antiphon_admin_key: SecretStr | None = None
    antiphon_internal_token: SecretStr | None = None
    antiphon_seal_secret: SecretStr | None = None
    antiphon_providers: Path | None = None
    antiphon_node: Path = CHECKOUT / ".cache" / "node"
    kafka_bootstrap: str | None = None
    kafka_brokers: int = Field(1, ge=1, le=5)
    database_url: SecretStr | None = None
    s3_endpoint: str | None = None
    upstream_base_url: str | None = None
    openai_api_key: SecretStr | None = None
    demo_model: str | None = None
    mcp_broker_servers: Path | None = None
    intake_replicas: int = Field(1, ge=1, le=8)
    worker_replicas: int = Field(1, ge=1, le=32)
    intake_drain_seconds: float = Field(10.0, ge=0)
    worker_drain_seconds: float = Field(10.0, ge=0)
    log_format: str = "console"

    @property
    def home(self) -> Path:
        """The stack's folder, absolute."""
        return self.antiphon_home.expanduser().absolute()

    @property
    def downloads(self) -> Path:
        """Where fetched archives are kept; several homes may share it."""
        return (self.antiphon_downloads or self.home / "downloads").expanduser().absolute()

    @property
    def url(self) -> str:
        """Intake's origin, as seen from this machine."""
        host = "127.0.0.1" if self.antiphon_host in ("0.0.0.0", "::") else self.antiphon_host
        return f"http://{host}:{self.antiphon_port}"

    @classmethod
    def load(cls, **overrides: object) -> LocalSettings:
        """Read the environment; raises StackError that names each bad value."""
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # names checked by pydantic
        except ValidationError as error:
            mistakes = "; ".join(
                f"{str(mistake['loc'][0]).upper()} is {mistake.get('input')!r}: {mistake['msg']}"
                for mistake in error.errors()
            )
            raise StackError(mistakes, fix="Correct the environment and run it again") from error
