"""The whole service on the real Kafka and PostgreSQL: facts in, ledger and facts out."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.costs import CostRecordedV1
from contracts.event import Contract
from contracts.principal import Principal
from contracts.topics import RESPONSES_LIFECYCLE, TOOLS_RESULTS
from infra.topics import apply
from services.kit.blobs.disk import DiskBlobs
from services.kit.claimcheck import check_in
from services.kit.codec import Stamp, decode, dumps, encode
from services.kit.deadletters import Record
from services.kit.producer import Producer
from tests.integration.costs.process import ROOT, TOKEN, CostsProcess, Listener, until
from tests.unit.costs.facts import FINISHED, finished, response, tool_result, usage

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    await apply(kafka_bootstrap)
    producer = Producer(kafka_bootstrap, client_id="costs-tests")
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def listener(kafka_bootstrap: str, producer: Producer) -> AsyncIterator[Listener]:
    listener = Listener(kafka_bootstrap, producer)
    await listener.start()
    yield listener
    await listener.stop()


@pytest.fixture
async def costs(
    kafka_bootstrap: str,
    database_url: str,
    engine: AsyncEngine,
    producer: Producer,
    tmp_path: Path,
) -> AsyncIterator[CostsProcess]:
    environment = {
        "KAFKA_BOOTSTRAP": kafka_bootstrap,
        "DATABASE_URL": database_url,
        "ANTIPHON_INTERNAL_TOKEN": TOKEN,
        "COSTS_BLOB_DIR": str(tmp_path / "blobs"),
        "COSTS_CONSUMER_GROUP": f"costs-{uuid4().hex}",
    }
    process = CostsProcess(environment, tmp_path / "costs.log")
    await process.start()
    yield process
    await process.end(signal.SIGKILL)


def message(data: Contract, response_id: str) -> bytes:
    stamp = Stamp(
        event_id=uuid4().hex,
        source="/tests",
        subject=response_id,
        time=FINISHED,
        traceparent=TRACE,
    )
    return encode(data, stamp)


async def send_finished(producer: Producer, response_id: str, **fields: Any) -> None:
    fact = finished(response_id=response_id, **fields)
    await producer.send(RESPONSES_LIFECYCLE.name, message(fact, response_id), key=response_id)


async def total(costs: CostsProcess, owner: Principal) -> dict[str, Any]:
    status, report = await costs.get("/v1/costs", project=owner.project)
    assert status == 200
    found: dict[str, Any] = report["total"]
    return found


def told(records: list[Record], owner: Principal) -> dict[str, CostRecordedV1]:
    """Return the facts of a project by their ids, which are those of their lines."""
    facts = {}
    for record in records:
        envelope = decode(record.value or b"")
        assert isinstance(envelope.data, CostRecordedV1)
        if envelope.data.principal.project == owner.project:
            assert record.key == envelope.subject.encode() == envelope.data.response_id.encode()
            assert envelope.traceparent == TRACE
            facts[envelope.id] = envelope.data
    return facts


async def test_facts_become_lines_that_can_be_asked_for_and_are_told(
    costs: CostsProcess, producer: Producer, listener: Listener, owner: Principal, tmp_path: Path
) -> None:
    first, large, unknown = (f"resp_{uuid4().hex}" for _ in range(3))
    await send_finished(producer, first, principal=owner)
    call = tool_result(response_id=first, principal=owner)
    await producer.send(TOOLS_RESULTS.name, message(call, first), key=first, partition=3)
    body = dumps(response(usage=usage(1_000_000, 0), instructions="x" * 600_000))
    claim = await check_in(DiskBlobs(tmp_path / "blobs"), key=large, payload=body)
    await send_finished(producer, large, principal=owner, response=None, payload=claim)
    await send_finished(producer, unknown, principal=owner, model="smollm2", provider="local")

    async def all_there() -> bool:
        return len(told(listener.facts, owner)) == 6

    await until(all_there)
    facts = told(listener.facts, owner)
    assert {line_id: fact.cost_usd for line_id, fact in facts.items()} == {
        f"{first}:input_tokens": Decimal("0.00015"),
        f"{first}:output_tokens": Decimal("0.0003"),
        f"{first}:call_1": None,
        f"{large}:input_tokens": Decimal("0.15"),
        f"{unknown}:input_tokens": None,
        f"{unknown}:output_tokens": None,
    }
    assert all((fact.cost_usd is None) == bool(fact.unpriced_reason) for fact in facts.values())
    assert await total(costs, owner) == {
        "cost_usd": "0.15045",
        "unpriced_lines": 3,
        "estimated_lines": 0,
        "quantities": {"input_tokens": 1_002_000, "output_tokens": 1000, "tool_calls": 1},
    }
    assert await costs.end(signal.SIGTERM) == 0


async def test_a_message_that_cannot_be_charged_is_buried_and_the_others_are_charged(
    costs: CostsProcess, producer: Producer, listener: Listener, owner: Principal
) -> None:
    poison = b"\xff not a message of " + owner.project.encode()
    unstorable = f"resp_{uuid4().hex}"
    await producer.send(RESPONSES_LIFECYCLE.name, poison, key=unstorable, headers=[("h", b"\xfe")])
    await send_finished(producer, unstorable, principal=owner, attempt=2**31)
    fine = [f"resp_{uuid4().hex}" for _ in range(5)]
    for response_id in fine:
        await send_finished(producer, response_id, principal=owner)

    async def both_buried() -> bool:
        return len(ours(listener, owner)) == 2 and len(told(listener.facts, owner)) == 10

    await until(both_buried)
    undecodable, refused = sorted(ours(listener, owner), key=lambda one: one.value != poison)
    assert undecodable.value == poison
    assert ("h", b"\xfe") in undecodable.headers
    assert b"RefusalError" in dict(refused.headers)["antiphon-dlq-reason"]
    assert (await total(costs, owner))["quantities"]["input_tokens"] == 5000


def ours(listener: Listener, owner: Principal) -> list[Record]:
    return [one for one in listener.dead_letters if owner.project.encode() in (one.value or b"")]


async def test_nothing_is_lost_or_doubled_when_the_service_is_killed(
    costs: CostsProcess, producer: Producer, listener: Listener, owner: Principal
) -> None:
    ids = [f"resp_{uuid4().hex}" for _ in range(300)]
    sending = asyncio.gather(*(send_finished(producer, one, principal=owner) for one in ids))

    async def some_there() -> bool:
        return len(told(listener.facts, owner)) > 0

    await until(some_there)
    await costs.end(signal.SIGKILL)
    await sending
    for response_id in ids[::3]:
        # What was sent may be sent again: its sender was not sure either.
        await send_finished(producer, response_id, principal=owner)
    await costs.start()

    async def all_there() -> bool:
        return len(told(listener.facts, owner)) == 600

    await until(all_there)
    assert (await total(costs, owner))["cost_usd"] == format(300 * Decimal("0.00045"), "f").rstrip(
        "0"
    )


def test_the_configuration_can_be_checked(tmp_path: Path) -> None:
    def check(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.costs.main", "--check-config"],
            env={"PATH": "", **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert check().returncode == 0
    wrong = check(COSTS_PRICES=str(tmp_path / "missing.toml"), COSTS_BATCH_RECORDS="0")
    assert wrong.returncode == 2
    assert [line.partition(":")[0] for line in wrong.stderr.splitlines()] == [
        "COSTS_PRICES",
        "COSTS_BATCH_RECORDS",
    ]
