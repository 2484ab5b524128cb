"""The registry of topics is complete, and names only what exists."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord

import contracts
from contracts.event import Contract
from contracts.registry import CONTRACTS
from contracts.topics import (
    CLAIM_CHECK_BYTES,
    DEAD_LETTER_HEADERS,
    DEAD_LETTER_HEADROOM_BYTES,
    EXTERNAL_READERS,
    TOPICS,
    Topic,
)
from services.kit.deadletters import DeadLetters, RefusalError
from services.kit.producer import Headers, Producer

SERVICES = {path.parent.name for path in Path(__file__).parents[2].glob("services/*/__init__.py")}
each_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


def test_every_contract_is_carried_by_exactly_one_topic() -> None:
    carried = Counter(contract.TYPE for topic in TOPICS for contract in topic.contracts)
    assert carried == Counter(dict.fromkeys(CONTRACTS, 1))


def test_no_contract_is_left_out_of_the_registry() -> None:
    for module in pkgutil.iter_modules(contracts.__path__, "contracts."):
        importlib.import_module(module.name)
    defined = {c for c in descendants(Contract) if c.__module__.startswith("contracts.")}
    assert defined == set(CONTRACTS.values())


def descendants(contract: type[Contract]) -> set[type[Contract]]:
    children = set(contract.__subclasses__())
    return children.union(*(descendants(child) for child in children))


def test_topics_have_names_of_their_own() -> None:
    names = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
    assert len(names) == len(set(names))


@each_topic
def test_a_topic_has_an_owner_and_somebody_who_reads_it(topic: Topic) -> None:
    assert topic.owner
    assert topic.readers or topic.tails


@each_topic
def test_owners_and_readers_exist(topic: Topic) -> None:
    assert set(topic.owner) <= SERVICES
    assert {*topic.readers, *topic.tails} <= SERVICES | EXTERNAL_READERS


@each_topic
def test_a_topic_is_named_by_house_rules_and_says_what_it_is_for(topic: Topic) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+", topic.name)
    assert topic.description.endswith(".")
    assert topic.key
    assert topic.dead_letters == f"{topic.name}.dlq"


@each_topic
def test_a_topic_has_sane_limits(topic: Topic) -> None:
    assert 1 <= topic.partitions <= 64
    assert topic.retention_ms == -1 or topic.retention_ms >= 3_600_000
    assert topic.max_message_bytes > CLAIM_CHECK_BYTES
    assert topic.config["retention.ms"] == str(topic.retention_ms)


@each_topic
def test_a_compacted_topic_keeps_state_for_ever_by_key(topic: Topic) -> None:
    if topic.cleanup_policy == "compact":
        assert topic.retention_ms == -1
        assert topic.hashed


def test_every_external_reader_reads_something() -> None:
    assert {reader for topic in TOPICS for reader in topic.readers} >= EXTERNAL_READERS


def test_a_contract_ends_in_its_version() -> None:
    for name, contract in CONTRACTS.items():
        version = re.fullmatch(r"antiphon\.[a-z_]+\.[a-z_]+\.v(\d+)", name)
        assert version is not None, name
        assert contract.__name__.endswith(f"V{version[1]}")


class Sent(Producer):
    """A producer that keeps what it is asked to send."""

    def __init__(self) -> None:
        super().__init__("nowhere:0", client_id="test")
        self.messages: list[tuple[str, str | bytes | None, bytes | None, Headers]] = []

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: str | bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        within_seconds: float | None = None,
    ) -> None:
        assert partition is None
        self.messages.append((topic, key, value, headers))


async def test_dead_letters_carry_the_headers_that_are_promised_and_fit() -> None:
    sent = Sent()
    record = ConsumerRecord(
        topic="responses.commands",
        partition=3,
        offset=42,
        timestamp=0,
        timestamp_type=0,
        key=b"resp_1",
        value=b"poison",
        checksum=None,
        serialized_key_size=6,
        serialized_value_size=6,
        headers=(("traceparent", b"00-1-2-01"),),
    )
    error = RefusalError("it has no type " + "x" * 100_000)
    await DeadLetters(sent, service="worker").bury(record, error)
    [(topic, key, value, headers)] = sent.messages
    assert (topic, key, value) == ("responses.commands.dlq", b"resp_1", b"poison")
    assert {name for name, _ in headers} == {"traceparent", *DEAD_LETTER_HEADERS}
    assert sum(len(name) + len(text) for name, text in headers) < DEAD_LETTER_HEADROOM_BYTES / 2
