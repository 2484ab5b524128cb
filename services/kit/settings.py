"""The base of every service's settings: its own prefix, and the variables all services share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)


class _SharedVariables(EnvSettingsSource):
    """Reads the fields that are marked as shared from variables without a prefix."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, env_prefix="")

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("shared"):
            return super().get_field_value(field, field_name)
        return None, field_name, False


def shared(default: Any = ..., **constraints: Any) -> Any:
    """Declare a setting that is read from `<PREFIX>_<NAME>` or else from `<NAME>`."""
    return Field(default, json_schema_extra={"shared": True}, **constraints)


class ServiceSettings(BaseSettings):
    """What every service is told. A subclass sets `env_prefix` and adds its own."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    kafka_bootstrap: str = shared("127.0.0.1:9092")
    database_url: str = shared("postgresql://postgres@127.0.0.1:5432/postgres")
    s3_endpoint: str | None = shared(None)
    s3_access_key: str = shared("")
    s3_secret_key: SecretStr = shared(SecretStr(""))
    s3_bucket: str = shared("antiphon")
    s3_region: str = shared("us-east-1")
    blob_dir: Path = shared(Path(".antiphon/data/blobs"))
    antiphon_internal_token: SecretStr = shared(SecretStr(""))
    otel_exporter_otlp_endpoint: str | None = shared(None)
    log_level: str = shared("INFO", pattern="(?i)^(debug|info|warning|error|critical)$")
    log_format: str = shared("json", pattern="^(json|console)$")
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    database_pool: int = Field(8, ge=1, le=100)
    shutdown_seconds: float = Field(20.0, gt=0)

    @property
    def stop_seconds(self) -> float:
        """How long a part may take to stop; longer where it lets work end first."""
        return self.shutdown_seconds

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit values win, then the service's own variables, then the shared ones."""
        return init_settings, env_settings, _SharedVariables(settings_cls)

    @classmethod
    def load(cls) -> Self:
        """Read the environment; on a bad value print one line per mistake and exit with 2."""
        try:
            return cls()
        except ValidationError as error:
            for mistake in error.errors():
                name = cls._variable("_".join(str(part) for part in mistake["loc"]))
                sys.stderr.write(f"{name}: {mistake['msg']} (is {mistake.get('input')!r})\n")
            raise SystemExit(2) from error

    def check(self) -> None:
        """Look at what the values name, such as files; a subclass raises what is wrong."""

    @classmethod
    def _variable(cls, field: str) -> str:
        """Return the variable that a field was read from."""
        own = str(cls.model_config.get("env_prefix", "")) + field.upper()
        return field.upper() if own not in os.environ and field.upper() in os.environ else own


def secret_variable(name: str) -> str:
    """Return the environment variable that a configuration file names for a secret, "" if unset."""
    return os.environ.get(name, "")
