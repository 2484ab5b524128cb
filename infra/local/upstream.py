"""Which model answers on a local stack, and the providers file that says so to the services."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infra.local.settings import LocalSettings

LOCAL_MODEL = "smollm2-135m"
OPENAI_MODEL = "gpt-5.4-nano"
OPENAI_PROVIDERS = Path(__file__).with_name("providers.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """The choice.

    `model` is what the demo asks, None when only a person can know. `providers` is the file for
    the services, None when they read their own variables or when `is_local`: see `local_providers`.
    """

    model: str | None
    is_local: bool = False
    providers: Path | None = None


def choose(settings: LocalSettings) -> Upstream:
    """A providers file or an UPSTREAM_BASE_URL wins, then OpenAI's key, then the local model."""
    if settings.antiphon_providers:
        return Upstream(model=settings.demo_model, providers=settings.antiphon_providers.absolute())
    if settings.upstream_base_url:
        return Upstream(model=settings.demo_model)
    if settings.openai_api_key:
        return Upstream(model=settings.demo_model or OPENAI_MODEL, providers=OPENAI_PROVIDERS)
    return Upstream(model=settings.demo_model or LOCAL_MODEL, is_local=True)


def local_providers(base_url: str) -> str:
    """Give the text of a providers file for the model on this machine."""
    return (
        "# Written by the local stack at every start.\n"
        "[[providers]]\n"
        'name = "local"\n'
        'dialect = "chat"\n'
        f'base_url = "{base_url}"\n'
        f'models = ["{LOCAL_MODEL}"]\n'
    )
