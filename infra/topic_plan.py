"""What it takes to make a cluster match the registry of topics; pure rules, no connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from contracts.topics import DEAD_LETTER_HEADROOM_BYTES, DEAD_LETTER_RETENTION_MS, FOREVER_MS, Topic

CREATE = "create"
PARTITIONS = "partitions"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a topic is, wanted or found. A found one has every setting that is in force.

    `hashed` counts on a wanted layout alone: then the number of partitions is part of the promise
    that messages of one key stay in order.
    """

    partitions: int
    config: Mapping[str, str]
    hashed: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the registry and a cluster.

    `what` is `create`, `partitions` or the name of a setting. `loss` says, where that is so, what
    would be lost by applying it.
    """

    topic: str
    what: str
    current: str | None
    wanted: str
    loss: str | None = None

    def __str__(self) -> str:
        """Return one line for people."""
        if self.what == CREATE:
            return f"{self.topic}: create with {self.wanted}"
        line = f"{self.topic}: {self.what} {self.current} -> {self.wanted}"
        return f"{line}, with a loss: {self.loss}" if self.loss else line


def wanted_layouts(topics: Iterable[Topic], prefix: str = "") -> dict[str, Layout]:
    """Return every topic of the registry and its dead letters, by name on the cluster."""
    layouts: dict[str, Layout] = {}
    for topic in topics:
        layouts[prefix + topic.name] = Layout(topic.partitions, topic.config, topic.hashed)
        layouts[prefix + topic.dead_letters] = Layout(
            1,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(DEAD_LETTER_RETENTION_MS),
                "max.message.bytes": str(topic.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES),
            },
            hashed=False,
        )
    return layouts


def plan(wanted: Mapping[str, Layout], found: Mapping[str, Layout]) -> list[Change]:
    """Return what to change, topic by topic; those that only the cluster has are left alone."""
    changes: list[Change] = []
    for name, layout in wanted.items():
        existing = found.get(name)
        if existing is None:
            changes.append(Change(name, CREATE, None, _describe(layout)))
            continue
        if existing.partitions != layout.partitions:
            changes.append(_partitions(name, existing.partitions, layout))
        for setting, value in layout.config.items():
            current = existing.config.get(setting)
            if current != value:
                loss = _config_loss(setting, current, value)
                changes.append(Change(name, setting, current, value, loss))
    return changes


def _describe(layout: Layout) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in layout.config.items())
    plural = "partition" if layout.partitions == 1 else "partitions"
    return f"{layout.partitions} {plural}, {settings}"


def _partitions(name: str, current: int, layout: Layout) -> Change:
    loss = None
    if layout.partitions < current:
        loss = "Kafka can't take partitions away; the topic would be deleted and made anew"
    elif layout.hashed:
        loss = (
            "messages of a key would land in another partition than its earlier ones, "
            "out of order and not compacted with them"
        )
    return Change(name, PARTITIONS, str(current), str(layout.partitions), loss)


def _config_loss(setting: str, current: str | None, value: str) -> str | None:
    rule = _LOSSES.get(setting)
    return None if rule is None or current is None else rule(current, value)


def _retention_loss(current: str, value: str) -> str | None:
    before, after = int(current), int(value)
    shorter = after != FOREVER_MS and (before == FOREVER_MS or after < before)
    return "messages older than the new retention would be deleted" if shorter else None


def _policy_loss(current: str, value: str) -> str | None:
    before, after = set(current.split(",")), set(value.split(","))
    if before == after:
        return None
    if "compact" in after - before:
        return "compaction would delete all but the latest message of each key"
    if "delete" in after - before:
        return "messages would be deleted by age, the only state of a key among them"
    return None


def _size_loss(current: str, value: str) -> str | None:
    smaller = int(value) < int(current)
    return "messages that fitted so far would be rejected" if smaller else None


_LOSSES: dict[str, Callable[[str, str], str | None]] = {
    "retention.ms": _retention_loss,
    "retention.bytes": _retention_loss,
    "cleanup.policy": _policy_loss,
    "max.message.bytes": _size_loss,
}
