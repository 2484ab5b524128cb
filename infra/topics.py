"""Makes a Kafka cluster match the registry of topics: `python -m infra.topics apply|diff`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from itertools import chain

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from contracts.topics import TOPICS, Topic
from infra.topic_plan import CREATE, PARTITIONS, Change, Layout, plan, wanted_layouts

_REQUEST_TIMEOUT_MS = 15_000
_SETTLE_S = 30.0
_POLL_S = 0.02
_DEFAULT_REPLICATION = 3
_DYNAMIC_TOPIC_CONFIG = 1
_NO_ERROR = 0
_UNKNOWN_TOPIC = 3
_NO_LEADER = 5
_TOPIC_EXISTS = 36

Layouts = dict[str, Layout]


class TopicsError(Exception):
    """The cluster can't be made to match; the message says why."""


class DataLossError(TopicsError):
    """Changes that would lose something were refused, and nothing at all was changed."""

    def __init__(self, refused: Sequence[Change]) -> None:
        super().__init__("\n".join(str(change) for change in refused))
        self.refused = tuple(refused)


async def diff(
    bootstrap: str, *, prefix: str = "", topics: Iterable[Topic] = TOPICS
) -> list[Change]:
    """Return what `apply` would change, nothing when the cluster matches.

    `prefix` goes before every topic's name. Raises `KafkaError` when no broker answers.
    """
    wanted = wanted_layouts(topics, prefix)
    async with _admin(bootstrap) as admin:
        return plan(wanted, await _found(admin, wanted))


async def apply(
    bootstrap: str,
    *,
    replication_factor: int | None = None,
    prefix: str = "",
    topics: Iterable[Topic] = TOPICS,
    allow_data_loss: Collection[str] = (),
) -> list[Change]:
    """Make the cluster match, wait until it does, and return what was changed. Idempotent.

    Topics outside the registry stay as they are. New topics get `replication_factor` replicas, by
    default as many as there are brokers, three at most. Raises `DataLossError` before anything is
    changed when a change would lose data of a topic that `allow_data_loss` does not name (with its
    prefix), `TopicsError` when the cluster refuses, `KafkaError` when no broker answers.
    """
    wanted = wanted_layouts(topics, prefix)
    async with _admin(bootstrap) as admin:
        found = await _found(admin, wanted)
        changes = plan(wanted, found)
        refused = [c for c in changes if c.loss is not None and c.topic not in allow_data_loss]
        if refused:
            raise DataLossError(refused)
        if changes:
            remade = await _delete_to_remake(admin, changes)
            new = remade | {change.topic for change in changes if change.what == CREATE}
            await _create(admin, {n: wanted[n] for n in wanted if n in new}, replication_factor)
            await _grow(admin, [c for c in changes if c.topic not in new])
            await _configure(admin, [c for c in changes if c.topic not in new])
            await _settle(admin, wanted)
        return changes


def apply_topics(bootstrap: str) -> None:
    """Apply the registry from code that is not async; raises as `apply` does."""
    asyncio.run(apply(bootstrap))


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, list[int]]:
    """Return the error code of each partition of each topic that exists."""
    codes: dict[str, list[int]] = {}
    for topic in await admin.describe_topics(list(names)):
        if topic["error_code"] == _UNKNOWN_TOPIC:
            continue
        if topic["error_code"] != _NO_LEADER:
            _check(topic["error_code"], topic["topic"], None)
        codes[topic["topic"]] = [partition["error_code"] for partition in topic["partitions"]]
    return codes


async def _entries(
    admin: AIOKafkaAdminClient, names: Iterable[str], *, overrides_only: bool = False
) -> dict[str, dict[str, str]]:
    """Return the settings of topics, in force or only those set on the topic itself."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    settings: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources) if resources else ():
        for resource in response.to_object()["resources"]:
            if resource["error_code"] == _UNKNOWN_TOPIC:
                continue
            _check(resource["error_code"], resource["resource_name"], resource["error_message"])
            settings[resource["resource_name"]] = {
                entry["config_names"]: entry["config_value"]
                for entry in resource["config_entries"]
                if not overrides_only or entry["config_source"] == _DYNAMIC_TOPIC_CONFIG
            }
    return settings


async def _found(admin: AIOKafkaAdminClient, names: Iterable[str]) -> Layouts:
    codes = await _partitions(admin, names)
    settings = await _entries(admin, codes)
    return {name: Layout(len(codes[name]), settings[name]) for name in codes if name in settings}


async def _create(
    admin: AIOKafkaAdminClient, layouts: Mapping[str, Layout], replication_factor: int | None
) -> None:
    if not layouts:
        return
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = replication_factor or min(_DEFAULT_REPLICATION, brokers)
    response = await admin.create_topics(
        [
            NewTopic(name, layout.partitions, replicas, topic_configs=dict(layout.config))
            for name, layout in layouts.items()
        ]
    )
    for name, code, message in response.topic_errors:
        if code != _TOPIC_EXISTS:  # somebody applies at the same time; the end is the same
            _check(code, name, message)


async def _delete_to_remake(admin: AIOKafkaAdminClient, changes: Iterable[Change]) -> set[str]:
    """Delete the topics that get fewer partitions; returns once they are gone."""
    names = {
        change.topic
        for change in changes
        if change.what == PARTITIONS and int(change.wanted) < int(change.current or 0)
    }
    if names:
        response = await admin.delete_topics(sorted(names))
        for name, code in response.topic_error_codes:
            _check(code, name, None)

        async def gone() -> bool:
            return not await _partitions(admin, names)

        await _until(gone, f"still there {_SETTLE_S:.0f} s after deletion: {', '.join(names)}")
    return names


async def _grow(admin: AIOKafkaAdminClient, changes: Iterable[Change]) -> None:
    grown = {c.topic: NewPartitions(int(c.wanted)) for c in changes if c.what == PARTITIONS}
    if grown:
        await admin.create_partitions(grown)


async def _configure(admin: AIOKafkaAdminClient, changes: Iterable[Change]) -> None:
    """Change settings and keep the other ones: the request replaces all that a topic overrides."""
    changed: dict[str, dict[str, str]] = {}
    for change in changes:
        if change.what not in {CREATE, PARTITIONS}:
            changed.setdefault(change.topic, {})[change.what] = change.wanted
    if not changed:
        return
    kept = await _entries(admin, changed, overrides_only=True)
    for response in await admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, name, {**kept.get(name, {}), **settings})
            for name, settings in changed.items()
        ]
    ):
        for resource in response.to_object()["resources"]:
            _check(resource["error_code"], resource["resource_name"], resource["error_message"])


async def _settle(admin: AIOKafkaAdminClient, wanted: Mapping[str, Layout]) -> None:
    """Return once the cluster shows the wanted state, every partition with a leader."""

    async def settled() -> bool:
        if plan(wanted, await _found(admin, wanted)):
            return False
        return not any(chain.from_iterable((await _partitions(admin, wanted)).values()))

    await _until(settled, f"the cluster does not show the topics after {_SETTLE_S:.0f} s")


async def _until(done: Callable[[], Awaitable[bool]], failure: str) -> None:
    try:
        async with asyncio.timeout(_SETTLE_S):
            while True:
                if await done():
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise TopicsError(failure) from error


def _check(code: int, name: str, message: str | None) -> None:
    if code != _NO_ERROR:
        reason = for_code(code)
        raise TopicsError(f"{name}: {message or reason.description} ({reason.message})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.topics", description=__doc__)
    parser.add_argument("command", choices=["apply", "diff"])
    parser.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP"), help="host:port")
    parser.add_argument("--prefix", default="", help="goes before the name of every topic")
    parser.add_argument(
        "--replication-factor", type=int, help="of new topics; at most 3 by default"
    )
    parser.add_argument(
        "--allow-data-loss",
        action="append",
        default=[],
        metavar="TOPIC",
        help="change this topic even where messages, order or state get lost; may be repeated",
    )
    return parser


async def _run(options: argparse.Namespace) -> int:
    if options.command == "diff":
        changes = await diff(options.bootstrap, prefix=options.prefix)
        for change in changes:
            print(change)
        return 1 if changes else 0
    changes = await apply(
        options.bootstrap,
        replication_factor=options.replication_factor,
        prefix=options.prefix,
        allow_data_loss=options.allow_data_loss,
    )
    for change in changes:
        print(change)
    print(f"{len(changes)} changes made" if changes else "the cluster matches the registry")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 when all is well, 1 when `diff` found differences, 2 on errors."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.bootstrap:
        parser.error("say which cluster: --bootstrap host:port or KAFKA_BOOTSTRAP")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what is raised
    try:
        return asyncio.run(_run(options))
    except DataLossError as error:
        print(error, file=sys.stderr)
        names = " ".join(f"--allow-data-loss {n}" for n in sorted({c.topic for c in error.refused}))
        print(f"Nothing was changed. If the loss is meant, repeat with {names}", file=sys.stderr)
    except TopicsError as error:
        print(error, file=sys.stderr)
    except (KafkaError, OSError, TimeoutError) as error:
        print(f"no answer from Kafka at {options.bootstrap}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
