"""The AsyncAPI document says what the registry says, in the form the specification asks for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from contracts.registry import CONTRACTS
from contracts.topics import DEAD_LETTER_HEADERS, EXTERNAL_READERS, TOPICS, Topic
from infra import schemas

SCHEMAS = schemas.ROOT / schemas.SCHEMAS
DOCUMENT: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text("utf-8"))
each_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [str(node["$ref"])] if "$ref" in node else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def resolve(reference: str) -> Any:
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def operations(action: str, channel: str) -> dict[str, dict[str, Any]]:
    """Return the operations on a channel by the service that its tag names."""
    return {
        operation["tags"][0]["name"]: operation
        for operation in DOCUMENT["operations"].values()
        if operation["action"] == action
        and operation["channel"] == {"$ref": f"#/channels/{channel}"}
    }


def test_the_document_has_the_fixed_fields_of_version_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"]["title"] == "Antiphon"
    assert re.fullmatch(r"\d+\.\d+\.\d+", DOCUMENT["info"]["version"])
    assert DOCUMENT["defaultContentType"] == "application/json"
    known = {
        "asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations",
        "components",
    }  # fmt: skip
    assert DOCUMENT.keys() <= known


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert found
    for reference in found:
        if reference.startswith("#/"):
            assert isinstance(resolve(reference), dict)
        else:
            assert (SCHEMAS / reference).resolve().parent == SCHEMAS
            assert (SCHEMAS / reference).exists()


def test_names_of_components_have_only_the_characters_that_are_allowed() -> None:
    names = [*DOCUMENT["components"]["messages"], *DOCUMENT["channels"], *DOCUMENT["operations"]]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_there_is_a_channel_per_topic_and_per_dead_letter_topic_and_no_other() -> None:
    names = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
    assert list(DOCUMENT["channels"]) == names
    assert all(DOCUMENT["channels"][name]["address"] == name for name in names)


@each_topic
def test_a_channel_has_the_bindings_of_its_topic(topic: Topic) -> None:
    channel = DOCUMENT["channels"][topic.name]
    binding = channel["bindings"]["kafka"]
    assert binding["topic"] == topic.name
    assert binding["partitions"] == topic.partitions
    assert re.fullmatch(r"\d+\.\d+\.\d+", binding["bindingVersion"])
    settings = binding["topicConfiguration"]
    assert settings["cleanup.policy"] == [topic.cleanup_policy]
    assert settings["retention.ms"] == topic.retention_ms
    assert settings["max.message.bytes"] == topic.max_message_bytes
    assert channel["x-key"] == topic.key
    assert topic.key in channel["description"]


@each_topic
def test_a_channel_carries_the_messages_of_its_topic(topic: Topic) -> None:
    names = {contract.TYPE for contract in topic.contracts} or {"pack"}
    assert set(DOCUMENT["channels"][topic.name]["messages"]) == names


@each_topic
def test_services_send_and_receive_what_the_registry_says(topic: Topic) -> None:
    assert set(operations("send", topic.name)) == set(topic.owner)
    receivers = operations("receive", topic.name)
    assert set(receivers) == {*topic.readers, *topic.tails}
    named = DOCUMENT["operations"]
    for reader in topic.readers:
        binding = named[f"{reader}.receive.{topic.name}"]["bindings"]["kafka"]
        assert binding["groupId"] == {"type": "string", "enum": [reader]}
    for tail in topic.tails:
        assert "bindings" not in named[f"{tail}.tail.{topic.name}"]


@each_topic
def test_services_that_read_a_topic_send_its_dead_letters(topic: Topic) -> None:
    senders = {*topic.readers, *topic.tails} - EXTERNAL_READERS
    assert set(operations("send", topic.dead_letters)) == senders
    channel = DOCUMENT["channels"][topic.dead_letters]
    assert set(channel["messages"]) == {"dead_letter"}
    assert channel["bindings"]["kafka"]["partitions"] == 1


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_message_has_the_committed_schema_as_its_payload(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    assert message["name"] == name
    assert message["contentType"] == "application/json"
    assert message["payload"] == {
        "schemaFormat": "application/schema+json;version=draft-07",
        "schema": {"$ref": f"./{name}.json"},
    }
    assert message["bindings"]["kafka"]["key"]["type"] == "string"


def test_packs_have_a_content_type_of_their_own() -> None:
    pack = DOCUMENT["components"]["messages"]["pack"]
    assert pack["contentType"] == "application/vnd.antiphon.pack"
    assert pack["payload"] == {"type": "string", "format": "binary"}


def test_dead_letters_list_their_headers() -> None:
    headers = DOCUMENT["components"]["messages"]["dead_letter"]["headers"]
    assert headers["type"] == "object"
    assert set(headers["properties"]) == set(headers["required"]) == set(DEAD_LETTER_HEADERS)
