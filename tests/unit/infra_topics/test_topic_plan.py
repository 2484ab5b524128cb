"""The rules by which a cluster is made to match the registry."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.topics import (
    CONFIG_CHANGED,
    DEAD_LETTER_HEADROOM_BYTES,
    DEAD_LETTER_RETENTION_MS,
    MCP_COMMANDS,
    RESPONSES_COMMANDS,
    RESPONSES_EVENTS,
    TOPICS,
    Topic,
)
from infra.topic_plan import CREATE, PARTITIONS, Layout, plan, wanted_layouts

CONFIG = {"cleanup.policy": "delete", "retention.ms": "1000", "max.message.bytes": "2000"}


def with_setting(setting: str, value: str) -> Layout:
    return Layout(3, {**CONFIG, setting: value})


def test_a_matching_cluster_needs_no_change() -> None:
    assert plan(wanted_layouts(TOPICS), wanted_layouts(TOPICS)) == []


def test_an_empty_cluster_gets_every_topic_with_its_dead_letters() -> None:
    changes = plan(wanted_layouts(TOPICS), {})
    assert {change.what for change in changes} == {CREATE}
    expected = {name for topic in TOPICS for name in (topic.name, topic.dead_letters)}
    assert {change.topic for change in changes} == expected
    assert all(change.loss is None for change in changes)


def test_a_prefix_goes_before_topics_and_dead_letters() -> None:
    names = list(wanted_layouts([RESPONSES_COMMANDS], "test1."))
    assert names == ["test1.responses.commands", "test1.responses.commands.dlq"]


def test_dead_letters_are_kept_long_and_have_room_for_headers() -> None:
    layout = wanted_layouts([RESPONSES_COMMANDS])["responses.commands.dlq"]
    assert layout.partitions == 1
    assert layout.config == {
        "cleanup.policy": "delete",
        "retention.ms": str(DEAD_LETTER_RETENTION_MS),
        "max.message.bytes": str(RESPONSES_COMMANDS.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES),
    }


def test_a_topic_outside_the_registry_is_left_alone() -> None:
    found = {**wanted_layouts(TOPICS), "someone.elses": Layout(99, {"retention.ms": "1"})}
    assert plan(wanted_layouts(TOPICS), found) == []


def test_settings_outside_the_registry_are_left_alone() -> None:
    found = {"a": Layout(3, {**CONFIG, "min.insync.replicas": "2"})}
    assert plan({"a": Layout(3, CONFIG)}, found) == []


def test_more_partitions_are_fine_where_the_writer_names_them() -> None:
    found = wanted_layouts([dataclasses.replace(RESPONSES_EVENTS, partitions=4)])
    [change] = plan(wanted_layouts([RESPONSES_EVENTS]), found)
    assert (change.what, change.current, change.wanted) == (PARTITIONS, "4", "8")
    assert change.loss is None
    assert str(change) == "responses.events: partitions 4 -> 8"


@pytest.mark.parametrize("topic", [MCP_COMMANDS, CONFIG_CHANGED])
def test_more_partitions_would_break_the_order_of_a_hashed_topic(topic: Topic) -> None:
    wanted = wanted_layouts([dataclasses.replace(topic, partitions=topic.partitions + 1)])
    [change] = plan(wanted, wanted_layouts([topic]))
    assert change.loss is not None
    assert "out of order" in str(change)


@pytest.mark.parametrize("topic", [RESPONSES_COMMANDS, RESPONSES_EVENTS])
def test_fewer_partitions_would_lose_messages(topic: Topic) -> None:
    found = wanted_layouts([dataclasses.replace(topic, partitions=topic.partitions + 1)])
    [change] = plan(wanted_layouts([topic]), found)
    assert "deleted" in (change.loss or "")


@pytest.mark.parametrize(
    ("setting", "current", "wanted", "loses"),
    [
        ("retention.ms", "1000", "999", True),
        ("retention.ms", "1000", "1001", False),
        ("retention.ms", "-1", "1000", True),
        ("retention.ms", "1000", "-1", False),
        ("retention.bytes", "-1", "1000", True),
        ("max.message.bytes", "2000", "1999", True),
        ("max.message.bytes", "2000", "2001", False),
        ("cleanup.policy", "delete", "compact", True),
        ("cleanup.policy", "compact", "delete", True),
        ("cleanup.policy", "compact", "compact,delete", True),
        ("cleanup.policy", "compact,delete", "compact", False),
        ("cleanup.policy", "compact,delete", "delete,compact", False),
        ("segment.ms", "1000", "10", False),
    ],
)
def test_a_setting_that_would_lose_data_says_so(
    setting: str, current: str, wanted: str, loses: bool
) -> None:
    [change] = plan({"a": with_setting(setting, wanted)}, {"a": with_setting(setting, current)})
    assert (change.what, change.current, change.wanted) == (setting, current, wanted)
    assert (change.loss is not None) is loses
    assert ("with a loss" in str(change)) is loses


retentions = st.one_of(st.just(-1), st.integers(min_value=0, max_value=10**12))


@given(current=retentions, wanted=retentions)
def test_retention_never_loses_in_both_directions(current: int, wanted: int) -> None:
    there = plan(
        {"a": with_setting("retention.ms", str(wanted))},
        {"a": with_setting("retention.ms", str(current))},
    )
    back = plan(
        {"a": with_setting("retention.ms", str(current))},
        {"a": with_setting("retention.ms", str(wanted))},
    )
    losses = [change.loss for change in (*there, *back) if change.loss]
    assert len(losses) == (0 if current == wanted else 1)


@given(data=st.data())
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(data: st.DataObject) -> None:
    wanted = wanted_layouts(TOPICS)
    found = {
        name: Layout(
            data.draw(st.integers(1, 20)),
            {key: data.draw(st.sampled_from([value, "7"])) for key, value in layout.config.items()},
        )
        for name, layout in list(wanted.items())[: data.draw(st.integers(0, 4))]
    }
    after = dict(found)
    for change in plan(wanted, found):
        layout = after.get(change.topic)
        if change.what == CREATE or layout is None:
            after[change.topic] = wanted[change.topic]
        elif change.what == PARTITIONS:
            after[change.topic] = Layout(int(change.wanted), layout.config)
        else:
            config = {**layout.config, change.what: change.wanted}
            after[change.topic] = Layout(layout.partitions, config)
    assert plan(wanted, after) == []
