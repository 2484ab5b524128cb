"""The program in docs/topics.md does what the page says, against a real Kafka."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from contracts.event import decode
from contracts.registry import CONTRACTS
from contracts.topics import COSTS_RECORDED
from infra.topics import apply

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "contracts/examples/antiphon.cost.recorded.v1"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    [code] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/topics.md").read_text("utf-8"), re.DOTALL
    )
    path = tmp_path / "consume_costs.py"
    path.write_text(code, "utf-8")
    return path


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    await apply(kafka_bootstrap)
    client = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    await client.start()
    yield client
    await client.stop()


def facts(project: str) -> list[bytes]:
    """Return the examples as messages of a project that no other test has."""
    texts = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.json"))]
    marked = [
        text.replace('"project": "research"', f'"project": "{project}"')
        .replace('"line_id": "', f'"line_id": "{project}:')
        .encode()
        for text in texts
    ]
    assert all(decode(fact, CONTRACTS) for fact in marked)
    return marked


async def lines_until(
    process: asyncio.subprocess.Process, enough: Callable[[list[str]], bool]
) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(30):
            while not enough(lines):
                line = await process.stdout.readline()
                assert line, "the program ended"
                lines.append(line.decode().strip())
    except TimeoutError:
        pytest.fail(f"it printed only {lines}")
    return lines


async def test_the_documented_consumer_counts_each_line_once(
    kafka_bootstrap: str, producer: AIOKafkaProducer, program: Path
) -> None:
    project = f"project-{uuid4().hex[:8]}"
    for fact in facts(project) * 2:
        await producer.send_and_wait(COSTS_RECORDED.name, fact, key=b"resp_1")
    ledger = program.with_name("ledger.sqlite")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KAFKA_BOOTSTRAP": kafka_bootstrap, "LEDGER": str(ledger)},
    )
    try:
        spent = f"{project} gpt-5-mini-2026-08-07: 0.00008670 USD, 0 lines without a price"
        free = f"{project} smollm2-135m-instruct: 0 USD, 1 lines without a price"
        await lines_until(process, lambda lines: {spent, free} <= set(lines))
        other = facts(f"{project}-b")[0]
        await producer.send_and_wait(COSTS_RECORDED.name, other, key=b"resp_1")
        await lines_until(process, lambda lines: any(f"{project}-b " in line for line in lines))
    finally:
        process.send_signal(signal.SIGINT)  # it leaves its group, as with Ctrl-C
        await process.communicate()
    with sqlite3.connect(ledger) as database:
        query = "SELECT count(*) FROM lines WHERE project = ?"
        [(count,)] = database.execute(query, [project]).fetchall()
    database.close()
    assert count == len(facts(project))
