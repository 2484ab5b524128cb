"""Which model answers on a local stack, and what a worker must be told about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from infra.local.settings import LocalSettings

LOCAL_MODEL = "smollm2-135m"
OPENAI_MODEL = "gpt-5.4-nano"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """The choice. `model` is what the demo asks; None when only the configuration knows."""

    description: str
    model: str | None
    is_local: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def choose(settings: LocalSettings) -> Upstream:
    """A providers file or an UPSTREAM_BASE_URL wins, then OpenAI's key, then the local model."""
    if settings.antiphon_providers or settings.upstream_base_url:
        where = settings.upstream_base_url or str(settings.antiphon_providers)
        return Upstream(description=where, model=settings.demo_model)
    if settings.openai_api_key:
        return Upstream(
            description=settings.openai_base_url,
            model=settings.demo_model or OPENAI_MODEL,
            environment={
                "UPSTREAM_BASE_URL": settings.openai_base_url,
                "UPSTREAM_API_KEY": settings.openai_api_key.get_secret_value(),
                "UPSTREAM_DIALECT": "responses",
            },
        )
    return Upstream(
        description="SmolLM2 135M on this machine",
        model=settings.demo_model or LOCAL_MODEL,
        is_local=True,
        environment={"UPSTREAM_DIALECT": "chat"},
    )
