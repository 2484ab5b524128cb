"""A message that nobody can handle goes to the dead letters, and its reader goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.topics import (
    EXTERNAL_READERS,
    RESPONSES_EVENTS,
    RESPONSES_LIFECYCLE,
    TOPICS,
    Topic,
)
from services.kit.deadletters import Record
from tests.e2e.parts import DIALECTS
from tests.e2e.stack import ROOT, Stack
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

READERS = {topic.name: {*topic.readers, *topic.tails} - EXTERNAL_READERS for topic in TOPICS}
# The worker reads events only of responses that it takes over, and passes by what is no pack;
# webhooks pass by what does not look like the end of a response that they tell of.
READERS[RESPONSES_EVENTS.name] -= {"worker"}
READERS[RESPONSES_LIFECYCLE.name] -= {"webhooks"}
READ = [topic for topic in TOPICS if READERS[topic.name]]


def places(topic: Topic) -> Sequence[int | None]:
    """Where to write so that a reader comes by: of events, intake reads the partition it found."""
    if topic is RESPONSES_EVENTS:
        return range(topic.partitions)
    return [None if topic.hashed else 0]


@pytest.mark.parametrize("topic", READ, ids=[topic.name for topic in READ])
async def test_poison_goes_to_the_dead_letters_as_it_is_and_the_next_message_is_handled(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str, topic: Topic
) -> None:
    poison = b"\xff\x00 no message " + mark.encode()
    readers = READERS[topic.name]
    begin = await topics.ends(topic.dead_letters)
    for partition in places(topic):
        await topics.send(
            topic.name,
            poison,
            key=mark,
            partition=partition,
            headers=[("sent-by", b"\xfe test")],
        )

    def is_ours(record: Record) -> bool:
        return record.value == poison

    letters = await topics.since(topic.dead_letters, begin, is_ours, count=len(readers))
    headers = [dict(letter.headers) for letter in letters]
    assert {each["antiphon-dlq-service"].decode() for each in headers} == readers
    for letter, each in zip(letters, headers, strict=True):
        assert letter.key == mark.encode()
        assert each["antiphon-dlq-reason"]
        assert each["antiphon-dlq-topic"] == topic.name.encode()
        assert each["sent-by"] == b"\xfe test"

    response = await client.responses.create(
        model=DIALECTS["responses"],
        input='call: echo {"message": "still here"}',
        tools=[{"type": "mcp", "server_label": "everything", "require_approval": "never"}],
    )
    assert "still here" in response.output_text
    assert (await client.responses.retrieve(response.id)).status == "completed"


def dlq(stack: Stack, *arguments: str) -> str:
    """What `antiphon dlq` prints about this stack."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP": stack.kafka_bootstrap, "NO_COLOR": "1"}
    command = (sys.executable, "-m", "infra.cli.main", "dlq", *arguments)
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    ).stdout


async def metrics(stack: Stack, service: str) -> str:
    url = f"http://127.0.0.1:{stack.part(service).port}/metrics"
    async with ClientSession() as anybody, anybody.get(url) as answer:
        return await answer.text()


async def test_the_command_finds_one_letter_sends_it_again_and_lets_it_go(
    stack: Stack, topics: Topics, mark: str
) -> None:
    topic = RESPONSES_LIFECYCLE
    poison = b"\xff\x00 " + mark.encode()
    readers = len(READERS[topic.name])
    begin = await topics.ends(topic.dead_letters)
    places = await topics.ends(topic.name)
    await topics.send(topic.name, poison, key=mark, headers=[("h", b"\xfe")])

    def is_ours(record: Record) -> bool:
        return record.key == mark.encode()

    await topics.since(topic.dead_letters, begin, is_ours, count=readers)
    (first,) = await topics.since(topic.name, places, is_ours)
    listed = {one["topic"]: one for one in json.loads(dlq(stack, "list", "--json"))}
    assert listed[topic.name]["waiting"] >= readers
    letters = dlq(stack, "show", topic.name, "--json", "--key", mark).splitlines()
    letter = json.loads(letters[0])
    assert b64decode(letter["value"]) == poison
    assert (b64decode(letter["key"]).decode(), letter["headers"]) == (mark, [["h", "/g=="]])
    assert letter["about"]["topic"] == topic.name
    assert "Traceback" in letter["about"]["stack"]

    begin = await topics.ends(topic.dead_letters)
    number = str(letter["number"])
    assert dlq(stack, "retry", topic.name, "--number", number).startswith("1 sent")
    again = (await topics.since(topic.name, places, is_ours, count=2))[1]
    assert (again.value, again.partition, list(again.headers)) == (
        poison,
        first.partition,
        [("h", b"\xfe")],
    )
    # It is no better than before: each reader writes a letter of its own once more.
    await topics.since(topic.dead_letters, begin, is_ours, count=readers)
    dropped = dlq(stack, "drop", topic.name, "--most", "100", "--key", mark)
    assert dropped.startswith(f"{2 * readers - 1} dead letters")
    assert dlq(stack, "show", topic.name, "--json", "--key", mark) == ""
    for service in READERS[topic.name]:
        counted = await metrics(stack, service)
        assert re.search(rf'antiphon_dead_letters_total{{.*reason="\w+".*"{topic.name}"', counted)
    assert "antiphon_dead_letters_waiting{" in await metrics(stack, "costs")
