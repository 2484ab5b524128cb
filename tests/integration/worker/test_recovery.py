"""What an earlier attempt told, read back from a real log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from contracts.packs import Entry, Flag, encode_pack
from contracts.topics import RESPONSES_EVENTS
from infra.topics import apply
from services.kit.blobs.disk import DiskBlobs
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.worker.runs.recovery import Delivered, delivered
from tests.unit.worker.runs import as_sse, script_events

PARTITION = 6
TOPIC = RESPONSES_EVENTS.name


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    await apply(kafka_bootstrap, topics=[RESPONSES_EVENTS])
    made = Producer(kafka_bootstrap, client_id="test")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path)


class Log:
    """The entries of one response, each in a pack of its own."""

    def __init__(self, bootstrap: str, producer: Producer, blobs: DiskBlobs) -> None:
        self._bootstrap = bootstrap
        self._producer = producer
        self._blobs = blobs
        self.response_id = new_id("resp")

    async def put(self, payload: bytes, index: int, *, attempt: int = 1, flags: int = 0) -> None:
        entry = Entry(self.response_id.encode(), attempt, index, payload, flags)
        other = Entry(b"resp_other", 1, index, b"data: {}\n\n")
        pack = encode_pack([other, entry, other])
        await self._producer.send(TOPIC, pack, partition=PARTITION)

    async def read(self) -> Delivered:
        return await delivered(
            self._bootstrap, self._blobs, response_id=self.response_id, partition=PARTITION
        )


@pytest.fixture
def log(kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs) -> Log:
    return Log(kafka_bootstrap, producer, blobs)


async def test_an_attempt_that_told_nothing_left_nothing(log: Log) -> None:
    found = await log.read()
    assert (found.ended, found.finished, found.built.delivered) == (False, None, False)
    assert found.built.last_sequence_number == -1


async def test_a_stream_in_parts_is_put_together(log: Log) -> None:
    events = script_events("say: one two three")
    for index, event in enumerate(events[:6]):
        await log.put(as_sse([event]), index)
    found = await log.read()
    assert found.built.last_sequence_number == 5
    assert found.built.items[0]["status"] == "incomplete"
    assert found.skeleton == events[0]["response"]
    assert not found.ended


async def test_a_whole_stream_is_finished(log: Log) -> None:
    events = script_events("say: one")
    await log.put(as_sse(events[:-1]), 0)
    await log.put(as_sse(events[-1:]), 1, flags=Flag.LAST)
    found = await log.read()
    assert found.ended
    assert found.finished == events[-1]["response"]
    assert found.last_sequence_number == events[-1]["sequence_number"]


async def test_repeats_and_older_attempts_are_left_out(log: Log) -> None:
    created, begun, added, *_ = script_events("say: one")
    await log.put(as_sse([created]), 0)
    await log.put(as_sse([begun]), 0, attempt=2)
    await log.put(as_sse([added]), 1)
    await log.put(as_sse([begun]), 0, attempt=2)
    found = await log.read()
    assert found.built.last_sequence_number == 1
    assert not found.built.delivered


async def test_a_large_json_answer_is_read_from_where_it_is(log: Log, blobs: DiskBlobs) -> None:
    answer = {"object": "response", "status": "completed", "output": []}
    await blobs.put("claims/x", orjson.dumps(answer), content_type="application/json")
    await log.put(b"claims/x", 0, flags=Flag.CLAIM | Flag.JSON | Flag.LAST)
    assert (await log.read()).finished == answer


async def test_an_error_for_a_json_client_is_known_with_its_message(log: Log) -> None:
    await log.put(b'{"error": {"message": "too hot"}}', 0, flags=Flag.JSON | Flag.LAST)
    found = await log.read()
    assert (found.ended, found.finished, found.error) == (True, None, "too hot")


async def test_damage_on_the_log_is_passed_over(log: Log, producer: Producer) -> None:
    events = script_events("say: one")
    await log.put(as_sse(events[:3]), 0)
    damaged = b"AP1\n" + log.response_id.encode()
    await producer.send(TOPIC, damaged, partition=PARTITION)
    await log.put(b"data: nonsense\n\n", 1)
    await log.put(as_sse(events[3:4]), 2)
    assert (await log.read()).built.last_sequence_number == 3
