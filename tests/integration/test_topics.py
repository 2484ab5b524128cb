"""The registry of topics against a real Kafka."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from contracts.topics import (
    CONFIG_CHANGED,
    MCP_COMMANDS,
    RESPONSES_COMMANDS,
    RESPONSES_EVENTS,
    TOPICS,
    Topic,
)
from infra import topics
from infra.topic_plan import CREATE
from infra.topics import DataLossError, TopicsError, apply, apply_topics, diff

COMMANDS = dataclasses.replace(RESPONSES_COMMANDS, partitions=2)
EVENTS = dataclasses.replace(RESPONSES_EVENTS, partitions=2)
HASHED = dataclasses.replace(MCP_COMMANDS, partitions=2)


@pytest.fixture
async def admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def prefix(admin: AIOKafkaAdminClient) -> AsyncIterator[str]:
    """A name for topics of one test alone; they are deleted after it."""
    value = f"test-{uuid4().hex[:12]}."
    yield value
    leftovers = [name for name in await admin.list_topics() if name.startswith(value)]
    if leftovers:
        await admin.delete_topics(leftovers)


def replace(topic: Topic, **changes: object) -> list[Topic]:
    return [dataclasses.replace(topic, **changes)]  # type: ignore[arg-type]  # any field of it


async def settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    [response] = await admin.describe_configs([resource])
    entries = response.to_object()["resources"][0]["config_entries"]
    return {entry["config_names"]: entry["config_value"] for entry in entries}


async def partitions(admin: AIOKafkaAdminClient, name: str) -> int:
    [topic] = await admin.describe_topics([name])
    return len(topic["partitions"])


async def create(admin: AIOKafkaAdminClient, topic: NewTopic) -> None:
    """Create a topic behind the registry's back; returns once the broker shows it."""
    await admin.create_topics([topic])
    async with asyncio.timeout(10):
        while await partitions(admin, topic.name) != topic.num_partitions:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


async def test_apply_creates_the_whole_registry_at_once_and_diff_agrees(
    kafka_bootstrap: str, admin: AIOKafkaAdminClient, prefix: str
) -> None:
    before = await diff(kafka_bootstrap, prefix=prefix)
    assert len(before) == 2 * len(TOPICS)
    started = time.monotonic()
    assert await apply(kafka_bootstrap, prefix=prefix) == before
    assert time.monotonic() - started < 10  # well below 2 s where nothing else runs
    assert await diff(kafka_bootstrap, prefix=prefix) == []
    for topic in TOPICS:
        assert await partitions(admin, prefix + topic.name) == topic.partitions
        assert topic.config.items() <= (await settings(admin, prefix + topic.name)).items()
        assert await partitions(admin, prefix + topic.dead_letters) == 1


async def test_apply_is_idempotent(kafka_bootstrap: str, prefix: str) -> None:
    await apply(kafka_bootstrap, prefix=prefix, topics=[COMMANDS])
    assert await apply(kafka_bootstrap, prefix=prefix, topics=[COMMANDS]) == []


async def test_two_appliers_at_once_both_succeed(kafka_bootstrap: str, prefix: str) -> None:
    await asyncio.gather(*(apply(kafka_bootstrap, prefix=prefix) for _ in range(3)))
    assert await diff(kafka_bootstrap, prefix=prefix) == []


async def test_topics_outside_the_registry_are_not_touched(
    kafka_bootstrap: str, admin: AIOKafkaAdminClient, prefix: str
) -> None:
    settings_of_other = {"retention.ms": "123456"}
    await create(admin, NewTopic(f"{prefix}other", 3, 1, topic_configs=settings_of_other))
    await apply(kafka_bootstrap, prefix=prefix, topics=[COMMANDS])
    assert await partitions(admin, f"{prefix}other") == 3
    assert (await settings(admin, f"{prefix}other"))["retention.ms"] == "123456"


async def test_settings_change_and_others_of_the_topic_stay(
    kafka_bootstrap: str, admin: AIOKafkaAdminClient, prefix: str
) -> None:
    name = prefix + COMMANDS.name
    config = {**COMMANDS.config, "retention.ms": "1000", "min.insync.replicas": "1"}
    await create(admin, NewTopic(name, 2, 1, topic_configs=config))
    changes = await apply(kafka_bootstrap, prefix=prefix, topics=[COMMANDS])
    assert [c.what for c in changes if c.topic == name] == ["retention.ms"]
    found = await settings(admin, name)
    assert found["retention.ms"] == str(COMMANDS.retention_ms)
    assert found["max.message.bytes"] == str(COMMANDS.max_message_bytes)
    assert found["min.insync.replicas"] == "1"


async def test_a_topic_without_hashed_keys_gets_more_partitions(
    kafka_bootstrap: str, admin: AIOKafkaAdminClient, prefix: str
) -> None:
    await apply(kafka_bootstrap, prefix=prefix, topics=[EVENTS])
    more = replace(EVENTS, partitions=5)
    [change] = await apply(kafka_bootstrap, prefix=prefix, topics=more)
    assert str(change) == f"{prefix}responses.events: partitions 2 -> 5"
    assert await partitions(admin, prefix + EVENTS.name) == 5


@pytest.mark.parametrize(
    ("topic", "changes", "reason"),
    [
        (HASHED, {"partitions": 3}, "out of order"),
        (EVENTS, {"partitions": 1}, "deleted and made anew"),
        (COMMANDS, {"retention_ms": 1000}, "older than the new retention"),
        (COMMANDS, {"cleanup_policy": "compact"}, "all but the latest"),
        (CONFIG_CHANGED, {"cleanup_policy": "delete"}, "deleted by age"),
        (COMMANDS, {"max_message_bytes": 1_000_000}, "rejected"),
    ],
)
async def test_what_would_lose_data_is_refused_and_nothing_changes(
    kafka_bootstrap: str, prefix: str, topic: Topic, changes: dict[str, object], reason: str
) -> None:
    await apply(kafka_bootstrap, prefix=prefix, topics=[topic])
    changed = [*replace(topic, **changes), dataclasses.replace(topic, name="another.topic")]
    with pytest.raises(DataLossError, match=reason) as caught:
        await apply(kafka_bootstrap, prefix=prefix, topics=changed)
    assert caught.value.refused[0].topic == prefix + topic.name
    assert await diff(kafka_bootstrap, prefix=prefix, topics=[topic]) == []
    creates = await diff(kafka_bootstrap, prefix=prefix, topics=changed[1:])
    assert {change.what for change in creates} == {CREATE}


@pytest.mark.parametrize(
    ("topic", "changes"),
    [
        (HASHED, {"partitions": 3}),
        (EVENTS, {"partitions": 1}),
        (COMMANDS, {"retention_ms": 1000, "cleanup_policy": "compact"}),
    ],
)
async def test_a_loss_that_is_allowed_by_name_is_carried_out(
    kafka_bootstrap: str, prefix: str, topic: Topic, changes: dict[str, object]
) -> None:
    await apply(kafka_bootstrap, prefix=prefix, topics=[topic])
    changed = replace(topic, **changes)
    allowed = [prefix + topic.name]
    await apply(kafka_bootstrap, prefix=prefix, topics=changed, allow_data_loss=allowed)
    assert await diff(kafka_bootstrap, prefix=prefix, topics=changed) == []


async def test_a_cluster_that_refuses_a_topic_gives_its_reason(
    kafka_bootstrap: str, prefix: str
) -> None:
    with pytest.raises(TopicsError, match=r"another\.topic.*INVALID_REPLICATION_FACTOR"):
        await apply(
            kafka_bootstrap,
            prefix=prefix,
            topics=replace(COMMANDS, name="another.topic"),
            replication_factor=999,
        )


async def test_the_command_line_tells_differences_by_lines_and_exit_codes(
    kafka_bootstrap: str,
    admin: AIOKafkaAdminClient,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: str) -> int:
        return topics.main([command, "--bootstrap", kafka_bootstrap, "--prefix", prefix])

    assert await asyncio.to_thread(run, "diff") == 1
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(TOPICS)
    assert await asyncio.to_thread(run, "apply") == 0
    assert f"{2 * len(TOPICS)} changes made" in capsys.readouterr().out
    assert await asyncio.to_thread(run, "diff") == 0
    assert capsys.readouterr().out == ""
    assert await asyncio.to_thread(run, "apply") == 0
    assert "the cluster matches the registry" in capsys.readouterr().out


async def test_the_command_line_names_the_flag_that_allows_a_loss(
    kafka_bootstrap: str,
    admin: AIOKafkaAdminClient,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = prefix + CONFIG_CHANGED.name
    policy = {**CONFIG_CHANGED.config, "cleanup.policy": "delete"}
    await create(admin, NewTopic(name, 1, 1, topic_configs=policy))
    command = ["apply", "--bootstrap", kafka_bootstrap, "--prefix", prefix]
    assert await asyncio.to_thread(topics.main, command) == 2
    assert f"--allow-data-loss {name}" in capsys.readouterr().err
    assert await asyncio.to_thread(topics.main, [*command, "--allow-data-loss", name]) == 0
    assert await diff(kafka_bootstrap, prefix=prefix) == []


def test_no_broker_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        port = bound.getsockname()[1]
        assert topics.main(["diff", "--bootstrap", f"127.0.0.1:{port}"]) == 2
    assert "no answer from Kafka at 127.0.0.1" in capsys.readouterr().err


def test_code_that_is_not_async_can_apply_the_registry_too(kafka_bootstrap: str) -> None:
    apply_topics(kafka_bootstrap)
    assert asyncio.run(diff(kafka_bootstrap)) == []
