"""`antiphon topics`: hand over to `infra.topics` with the cluster of this stack."""

from __future__ import annotations

from infra import topics
from infra.local.errors import StackError
from infra.local.settings import LocalSettings
from infra.local.state import running


def bootstrap(settings: LocalSettings) -> str:
    """Return the Kafka of this stack, or the one that is configured; raises StackError."""
    if settings.kafka_bootstrap:
        return settings.kafka_bootstrap
    status = running(settings.home)
    brokers = [part for part in status.parts if part.name.startswith("kafka")] if status else []
    if addresses := [f"127.0.0.1:{part.port}" for part in brokers if part.port]:
        return ",".join(addresses)
    raise StackError(
        "No Kafka is known", fix="Start the stack with `antiphon up` or set KAFKA_BOOTSTRAP"
    )


def apply(*, allow_data_loss: list[str] | None = None) -> int:
    """Make Kafka's topics match the registry; refuses what would lose data.

    Parameters
    ----------
    allow_data_loss
        A topic that may be changed although messages get lost; may be repeated.
    """
    losses = [word for topic in allow_data_loss or [] for word in ("--allow-data-loss", topic)]
    return topics.main(["apply", "--bootstrap", bootstrap(LocalSettings.load()), *losses])


def diff() -> int:
    """Show what `apply` would change; exit code 1 when there is something."""
    return topics.main(["diff", "--bootstrap", bootstrap(LocalSettings.load())])
