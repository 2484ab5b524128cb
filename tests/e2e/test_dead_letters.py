"""A message that nobody can handle goes to the dead letters, and its reader goes on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
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
