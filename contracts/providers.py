"""The providers file: which upstream serves which model, shared by intake and the worker."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

Dialect = Literal["responses", "chat"]
OnUnsupportedTools = Literal["drop", "refuse"]
_MOST_KNOWN_MODELS = 1_000


class ProvidersFileError(ValueError):
    """The providers file can't be used; the message names the file and the key."""


class ProviderConfig(BaseModel):
    """One upstream. Times are seconds; `models` are names or shell patterns such as `gpt-*`.

    `aliases` maps a model's public name to the name this provider knows. `hosted_tools` are tool
    types the provider runs itself. `reasoning_field` is where a chat provider takes back what it
    thought before. `retries` counts tries after the first, before the first byte.
    `models_without_tools` are names or patterns of those it serves that can't call any.
    `service_tier` is asked for when the client names none; `service_tiers` maps the API's names to
    the provider's own. `background` says that it runs background responses by itself: ours are
    followed there, for up to `background_seconds`, and outlive their worker.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    dialect: Dialect = "responses"
    base_url: str = Field(pattern=r"^https?://")
    api_key_env: str | None = None
    models: tuple[str, ...] = ("*",)
    aliases: dict[str, str] = Field(default_factory=dict)
    hosted_tools: frozenset[str] = frozenset()
    reasoning_field: Literal["reasoning_content", "reasoning", "none"] = "reasoning_content"
    headers: dict[str, str] = Field(default_factory=dict)
    connect_timeout_seconds: float = Field(5.0, gt=0, le=120)
    first_byte_timeout_seconds: float = Field(120.0, gt=0, le=3600)
    idle_timeout_seconds: float = Field(120.0, gt=0, le=3600)
    total_timeout_seconds: float = Field(1800.0, gt=0, le=86_400)
    retries: int = Field(2, ge=0, le=10)
    max_connections: int = Field(1000, ge=1, le=100_000)
    max_concurrency: int | None = Field(None, ge=1, le=100_000)
    concurrency_wait_seconds: float = Field(5.0, ge=0, le=600)
    breaker_failures: int = Field(10, ge=0, le=10_000)
    breaker_failure_rate: float = Field(0.5, gt=0, le=1)
    breaker_min_calls: int = Field(20, ge=1, le=100_000)
    breaker_window_seconds: float = Field(30.0, gt=0, le=3600)
    breaker_open_seconds: float = Field(10.0, gt=0, le=3600)
    breaker_probes: int = Field(1, ge=1, le=100)
    service_tier: str | None = None
    service_tiers: dict[str, str] = Field(default_factory=dict)
    models_without_tools: tuple[str, ...] = ()
    on_unsupported_tools: OnUnsupportedTools = "drop"
    background: bool = False
    background_seconds: float = Field(21_600.0, gt=0, le=86_400)

    def serves(self, model: str) -> bool:
        """Whether the provider is configured for the model's public name."""
        return model in self.aliases or any(
            fnmatch.fnmatchcase(model, pattern) for pattern in self.models
        )

    def has_tools(self, model: str) -> bool:
        """Whether the model, by its public name, can be offered tools here."""
        return not any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models_without_tools)

    def upstream_name(self, model: str) -> str:
        """Return the name the provider knows the model by."""
        return self.aliases.get(model, model)

    @property
    def named_models(self) -> tuple[str, ...]:
        """The models that are named in full, patterns left out."""
        plain = [model for model in self.models if not set(model) & set("*?[")]
        return (*plain, *self.aliases)


class Providers(BaseModel):
    """All upstreams, in the order of preference: the first that serves a model is asked first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    providers: tuple[ProviderConfig, ...] = Field(min_length=1)
    _known: dict[str, tuple[ProviderConfig, ...]] = PrivateAttr(default_factory=dict)

    def serving(self, model: str) -> tuple[ProviderConfig, ...]:
        """Return the providers of a model, the preferred one first; empty when it is unknown."""
        found = self._known.get(model)
        if found is None:
            found = tuple(provider for provider in self.providers if provider.serves(model))
            # Names that nobody serves are not kept: a client could make up any number of them.
            if found and len(self._known) < _MOST_KNOWN_MODELS:
                self._known[model] = found
        return found


def load_providers(path: Path) -> Providers:
    """Read and validate a providers file (TOML); raises `ProvidersFileError`."""
    try:
        return Providers.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProvidersFileError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ProvidersFileError(f"{path}: {error}") from error
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']}"
            for mistake in error.errors()
        )
        raise ProvidersFileError(f"{path}: {mistakes}") from error


def single_provider(*, base_url: str, dialect: Dialect, api_key_env: str) -> Providers:
    """Return the providers that the `UPSTREAM_*` variables stand for: one, for every model."""
    provider = ProviderConfig(
        name="upstream",
        base_url=base_url,
        dialect=dialect,
        api_key_env=api_key_env,
        # There is no other provider to ask instead.
        breaker_failures=0,
    )
    return Providers(providers=(provider,))
