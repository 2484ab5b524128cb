"""A message that nobody can handle goes to the dead letters, and its reader goes on."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from contracts.topics import EXTERNAL_READERS, RESPONSES_EVENTS, TOPICS, Topic
from services.kit.deadletters import Record
from tests.e2e.parts import DIALECTS
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

# The worker reads events only of responses that it takes over, and passes by what is no pack.
READERS = {topic.name: {*topic.readers, *topic.tails} - EXTERNAL_READERS for topic in TOPICS} | {
    RESPONSES_EVENTS.name: {"intake"}
}
READ = [topic for topic in TOPICS if READERS[topic.name]]


@pytest.mark.parametrize("topic", READ, ids=[topic.name for topic in READ])
async def test_poison_goes_to_the_dead_letters_as_it_is_and_the_next_message_is_handled(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str, topic: Topic
) -> None:
    poison = b"\xff\x00 no message " + mark.encode()
    readers = READERS[topic.name]
    begin = await topics.ends(topic.dead_letters)
    await topics.send(
        topic.name,
        poison,
        key=mark,
        partition=None if topic.hashed else 0,
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
