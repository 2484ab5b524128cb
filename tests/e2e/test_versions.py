"""Messages of the next version among readers of this one: none is lost, none stops a reader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contracts.topics import RESPONSES_COMMANDS, TOPICS, Topic
from services.kit.deadletters import Record
from services.kit.ids import uuid7_hex
from tests.e2e.stack import Stack
from tests.e2e.test_dead_letters import READERS
from tests.e2e.topics import Topics

EXAMPLES = Path(__file__).parents[2] / "contracts" / "examples"
READ = [topic for topic in TOPICS if topic.contracts and READERS[topic.name]]


def examples(topic: Topic) -> list[dict[str, Any]]:
    """The messages of a topic as a newer writer would send them, each with ids of its own."""
    found: list[dict[str, Any]] = []
    for contract in topic.contracts:
        for path in sorted((EXAMPLES / contract.TYPE).glob("*.json")):
            text = re.sub(r"(?<=_)[0-9a-f]{32}\b", lambda _: uuid7_hex(), path.read_text("utf-8"))
            message = json.loads(text)
            if "payload" in message["data"]:
                # What it refers to was never in this stack's object store.
                continue
            message["id"] = uuid7_hex()
            message["added_later"] = message["data"]["added_later"] = {"by": ["a", "newer"]}
            found.append(message)
    return found


@pytest.mark.parametrize("topic", READ, ids=[topic.name for topic in READ])
async def test_fields_of_the_next_version_are_passed_over_and_its_types_are_kept_for_later(
    stack: Stack, topics: Topics, mark: str, topic: Topic
) -> None:
    begin = await topics.ends(topic.dead_letters)
    sent = [json.dumps(message).encode() for message in examples(topic)]
    last = {**examples(topic)[-1], "type": f"antiphon.later.{mark}.v99"}
    unknown = json.dumps(last).encode()
    key, partition = f"resp_{uuid7_hex()}", None if topic.hashed else 0
    for value in (*sent, unknown):
        await topics.send(topic.name, value, key=key, partition=partition)

    # Workers wait for a newer one with commands that they do not know.
    readers = READERS[topic.name] - ({"worker"} if topic is RESPONSES_COMMANDS else set())
    letters = await topics.since(
        topic.dead_letters, begin, lambda one: one.key == key.encode(), count=len(readers)
    )
    assert {letter.value for letter in letters} == {unknown}, _reasons(letters)
    assert {dict(one.headers)["antiphon-dlq-service"].decode() for one in letters} == readers


def _reasons(letters: list[Record]) -> list[bytes]:
    return [dict(letter.headers)["antiphon-dlq-reason"] for letter in letters]
