"""The AsyncAPI 3.0 document of the platform, made from the registry of topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contracts.event import Contract
from contracts.topics import DEAD_LETTER_HEADERS, EXTERNAL_READERS, TOPICS, Topic
from infra.topic_plan import wanted_layouts

PACK_CONTENT_TYPE = "application/vnd.antiphon.pack"
SCHEMA_FORMAT = "application/schema+json;version=draft-07"
_CHANNEL_BINDING = "0.5.0"
_OPERATION_BINDING = "0.5.0"
_MESSAGE_BINDING = "0.5.0"
_PACK = "pack"
_DEAD_LETTER = "dead_letter"

Document = dict[str, Any]


def document() -> Document:
    """Return the document; payloads refer to the JSON Schemas that lie beside it."""
    channels: Document = {}
    operations: Document = {}
    for topic in TOPICS:
        channels[topic.name] = _channel(topic)
        channels[topic.dead_letters] = _dead_letters(topic)
        operations.update(_operations(topic))
    contracts = [contract for topic in TOPICS for contract in topic.contracts]
    messages = {contract.TYPE: _message(contract) for contract in contracts}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Antiphon",
            "version": "1.0.0",
            "description": (
                "The topics and messages of Antiphon. Generated from contracts/; do not edit. "
                "Messages are CloudEvents 1.0 in the JSON format, except packs. A type ends in the "
                "major version of its contract; readers ignore fields that they do not know."
            ),
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {**messages, _PACK: _pack(), _DEAD_LETTER: _dead_letter()},
        },
    }


def _channel(topic: Topic) -> Document:
    names = [contract.TYPE for contract in topic.contracts] or [_PACK]
    return {
        "address": topic.name,
        "description": f"{topic.description} Key: {topic.key}.",
        "messages": {name: _reference("components", "messages", name) for name in names},
        "bindings": _channel_binding(topic, topic.name),
        "x-key": topic.key,
        "x-hashed": topic.hashed,
        "x-dead-letters": topic.dead_letters,
    }


def _dead_letters(topic: Topic) -> Document:
    return {
        "address": topic.dead_letters,
        "description": f"Messages of {topic.name} that a reader could not handle.",
        "messages": {_DEAD_LETTER: _reference("components", "messages", _DEAD_LETTER)},
        "bindings": _channel_binding(topic, topic.dead_letters),
    }


def _channel_binding(topic: Topic, name: str) -> Document:
    layout = wanted_layouts([topic])[name]
    settings: Document = {
        key: int(value) if _is_number(value) else value.split(",")
        for key, value in sorted(layout.config.items())
    }
    return {
        "kafka": {
            "topic": name,
            "partitions": layout.partitions,
            "topicConfiguration": settings,
            "bindingVersion": _CHANNEL_BINDING,
        }
    }


def _is_number(value: str) -> bool:
    return value.removeprefix("-").isdigit()


def _operations(topic: Topic) -> Iterator[tuple[str, Document]]:
    """Yield what each service does with a topic and its dead letters, named by the service."""
    for service in topic.owner:
        yield f"{service}.send.{topic.name}", _operation("send", topic.name, service)
    for service in topic.readers:
        operation = _operation("receive", topic.name, service)
        operation["bindings"] = {
            "kafka": {
                "groupId": {"type": "string", "enum": [service]},
                "bindingVersion": _OPERATION_BINDING,
            }
        }
        yield f"{service}.receive.{topic.name}", operation
    for service in topic.tails:
        operation = _operation("receive", topic.name, service)
        operation["summary"] = f"{service} reads whole partitions of it, without a group."
        yield f"{service}.tail.{topic.name}", operation
    for service in sorted({*topic.readers, *topic.tails} - EXTERNAL_READERS):
        operation = _operation("send", topic.dead_letters, service)
        yield f"{service}.send.{topic.dead_letters}", operation


def _operation(action: str, channel: str, service: str) -> Document:
    return {
        "action": action,
        "channel": _reference("channels", channel),
        "tags": [{"name": service}],
    }


def _message(contract: type[Contract]) -> Document:
    summary = (contract.__doc__ or "").split("\n", maxsplit=1)[0]
    return {
        "name": contract.TYPE,
        "title": contract.__name__,
        "summary": summary,
        "contentType": "application/json",
        "payload": {
            "schemaFormat": SCHEMA_FORMAT,
            "schema": {"$ref": f"./{contract.TYPE}.json"},
        },
        "bindings": _key_binding("The subject of the message, see the key of its channel."),
    }


def _pack() -> Document:
    return {
        "name": _PACK,
        "title": "Pack",
        "summary": "Stream bytes of many responses; contracts/packs.py has the layout.",
        "contentType": PACK_CONTENT_TYPE,
        "payload": {"type": "string", "format": "binary"},
    }


def _dead_letter() -> Document:
    headers = {
        name: {"type": "string", "description": description}
        for name, description in DEAD_LETTER_HEADERS.items()
    }
    return {
        "name": _DEAD_LETTER,
        "title": "Dead letter",
        "summary": "The bytes and headers of a message that could not be handled, and the reason.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"type": "string", "format": "binary"},
        "bindings": _key_binding("The key of the message that is kept."),
    }


def _key_binding(description: str) -> Document:
    key = {"type": "string", "description": description}
    return {"kafka": {"key": key, "bindingVersion": _MESSAGE_BINDING}}


def _reference(*path: str) -> Document:
    return {"$ref": "#/" + "/".join(path)}
