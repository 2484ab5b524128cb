"""The broker's use cases against records, tools and results that live in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.principal import Principal
from contracts.tools import CallMcpToolV1, ToolResultV1
from services.mcp_broker.domain import Outcome
from services.mcp_broker.errors import ToolCallFailedError
from services.mcp_broker.service import Accepted, Broker, Policy, Ports, Recorded

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class MemoryRecords:
    """Call records of one process whose leases never expire unless a test says so."""

    def __init__(self) -> None:
        self.calls: dict[str, Accepted] = {}
        self.results: dict[str, bytes] = {}
        self.answered: set[str] = set()
        self.released: list[str] = []
        self.expired: list[str] = []
        self.outages = 0

    async def claim(self, batch: Sequence[Accepted]) -> list[Recorded]:
        seen: dict[str, Accepted] = {}
        for call in batch:
            call_id = call.command.call_id
            if call_id in self.calls:
                seen[call_id] = call
        for call in batch:
            self.calls[call.command.call_id] = call
        return [Recorded(call, self.results.get(call_id)) for call_id, call in seen.items()]

    async def take_expired(self, limit: int) -> list[Recorded]:
        taken, self.expired = self.expired[:limit], self.expired[limit:]
        return [Recorded(self.calls[call_id], self.results.get(call_id)) for call_id in taken]

    async def renew(self, call_ids: Sequence[str]) -> None:
        pass

    async def finish(self, call_id: str, result: bytes) -> int | None:
        if self.outages:
            self.outages -= 1
            raise ConnectionRefusedError
        self.results[call_id] = result
        return self.calls[call_id].command.reply_partition

    async def mark_answered(self, call_ids: Sequence[str]) -> None:
        self.answered.update(call_ids)

    async def release(self, call_ids: Sequence[str]) -> None:
        self.released.extend(call_ids)

    async def purge(self, *, older_than_seconds: float, limit: int) -> int:
        assert older_than_seconds > 0
        assert limit > 0
        return 0


class MemoryTools:
    """Runs `echo`, fails `fail`, and holds `slow` until the test opens the gate."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.gate = asyncio.Event()

    def knows(self, label: str, tool: str) -> bool:
        return label == "here" and tool in ("echo", "slow")

    async def call(self, label: str, tool: str, arguments: dict[str, Any]) -> Outcome:
        assert label == "here"
        self.ran.append(tool)
        if tool == "fail":
            raise ToolCallFailedError("unavailable", "it is away")
        if tool == "slow":
            await self.gate.wait()
        return Outcome(output=str(arguments))


class MemoryResults:
    def __init__(self) -> None:
        self.sent: list[tuple[int, ToolResultV1]] = []

    def encode(self, result: ToolResultV1, *, traceparent: str | None) -> bytes:
        assert traceparent == TRACE
        return result.model_dump_json().encode()

    async def send(self, message: bytes, *, response_id: str, partition: int) -> None:
        result = ToolResultV1.model_validate_json(message)
        assert result.response_id == response_id
        self.sent.append((partition, result))


class Scene:
    """A broker and everything around it."""

    def __init__(self, *, drain_seconds: float = 5.0) -> None:
        self.records = MemoryRecords()
        self.tools = MemoryTools()
        self.results = MemoryResults()
        self.fatal: list[BaseException] = []
        policy = Policy(
            lease_seconds=60,
            max_call_seconds=60,
            retention_seconds=60,
            purge_seconds=60,
            drain_seconds=drain_seconds,
            transient=(OSError,),
        )
        ports = Ports(
            records=self.records, tools=self.tools, results=self.results, clock=FixedClock()
        )
        self.broker = Broker(ports, policy, on_fatal=self.fatal.append)


def call(
    tool: str = "echo", *, call_id: str = "call_1", partition: int = 3, arguments: str = "{}",
    seconds: float = 30,
) -> Accepted:  # fmt: skip
    command = CallMcpToolV1(
        call_id=call_id,
        response_id="resp_1",
        principal=Principal(project="p", key_id="k"),
        server_label="here",
        tool=tool,
        arguments=arguments,
        reply_partition=partition,
        deadline=NOW + timedelta(seconds=seconds),
    )
    return Accepted(command=command, traceparent=TRACE)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is the broker's, without an event
            await asyncio.sleep(0.001)


async def test_a_call_is_answered_at_the_partition_that_waits() -> None:
    scene = Scene()
    await scene.broker.accept([call(arguments='{"a": 1}', partition=5)])
    await until(lambda: bool(scene.records.answered))
    [(partition, result)] = scene.results.sent
    assert (partition, result.output, result.error) == (5, "{'a': 1}", None)
    assert (result.executor, result.server_label, result.tool) == ("mcp_broker", "here", "echo")


async def test_a_slow_call_does_not_hold_up_the_others() -> None:
    scene = Scene()
    await scene.broker.accept([call("slow", call_id="slow"), call(call_id="quick")])
    await until(lambda: scene.records.answered == {"quick"})
    scene.tools.gate.set()
    await until(lambda: scene.records.answered == {"quick", "slow"})


async def test_a_call_that_stands_twice_in_a_batch_runs_once() -> None:
    scene = Scene()
    await scene.broker.accept([call(), call()])
    await until(lambda: bool(scene.records.answered))
    assert scene.tools.ran == ["echo"]


async def test_a_repeated_call_that_still_runs_is_not_started_again() -> None:
    scene = Scene()
    await scene.broker.accept([call("slow")])
    await scene.broker.accept([call("slow", partition=7)])
    scene.tools.gate.set()
    await until(lambda: bool(scene.records.answered))
    assert scene.tools.ran == ["slow"]
    assert [partition for partition, _ in scene.results.sent] == [7]


async def test_a_repeated_call_that_is_finished_is_answered_from_its_record() -> None:
    scene = Scene()
    await scene.broker.accept([call()])
    await until(lambda: bool(scene.records.answered))
    await scene.broker.accept([call(partition=7)])
    assert scene.tools.ran == ["echo"]
    assert [partition for partition, _ in scene.results.sent] == [3, 7]
    assert scene.results.sent[0][1] == scene.results.sent[1][1]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (call("fail"), "unavailable"),
        (call(arguments="[]"), "invalid_arguments"),
        (call(seconds=-1), "timeout"),
        (call("slow", seconds=0.01), "timeout"),
    ],
    ids=["server away", "bad arguments", "deadline passed", "deadline passes"],
)
async def test_a_failure_is_an_answer_too(asked: Accepted, error: str) -> None:
    scene = Scene()
    await scene.broker.accept([asked])
    await until(lambda: bool(scene.records.answered))
    [(_, result)] = scene.results.sent
    assert result.error == error
    assert result.message


async def test_bad_arguments_and_late_calls_never_reach_the_tool() -> None:
    scene = Scene()
    late = call(call_id="late", seconds=-1)
    await scene.broker.accept([late, call(call_id="bad", arguments="[]")])
    await until(lambda: len(scene.records.answered) == 2)
    assert scene.tools.ran == []


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1), max_size=6))
async def test_however_calls_are_redelivered_each_runs_once_and_is_answered(
    batches: list[list[tuple[int, bool]]],
) -> None:
    """A batch is a list of (call, whether it takes long)."""

    scene = Scene()
    for batch in batches:
        asked = [call("slow" if slow else "echo", call_id=str(n)) for n, slow in batch]
        await scene.broker.accept(asked)
        await asyncio.sleep(0)
    scene.tools.gate.set()
    ids = {str(n) for batch in batches for n, _ in batch}
    await until(lambda: scene.records.answered == ids)
    assert len(scene.tools.ran) == len(ids)
    results: dict[str, set[str]] = {}
    for _, result in scene.results.sent:
        results.setdefault(result.call_id, set()).add(result.model_dump_json())
    assert results.keys() == ids
    assert all(len(different) == 1 for different in results.values())


async def test_a_sweep_runs_what_was_left_and_answers_what_was_finished() -> None:
    scene = Scene()
    left, finished = call(call_id="left"), call(call_id="finished")
    scene.records.calls = {"left": left, "finished": finished}
    scene.records.expired = ["left", "finished"]
    done = ToolResultV1(
        call_id="finished", response_id="resp_1", principal=finished.command.principal,
        executor="mcp_broker", server_label="here", tool="echo", output="before", latency_ms=1,
    )  # fmt: skip
    scene.records.results["finished"] = done.model_dump_json().encode()
    await scene.broker.sweep()
    await until(lambda: scene.records.answered == {"left", "finished"})
    assert {result.call_id: result.output for _, result in scene.results.sent} == {
        "left": "{}",
        "finished": "before",
    }
    assert scene.tools.ran == ["echo"]


async def test_a_short_outage_of_the_database_loses_no_result() -> None:
    scene = Scene()
    scene.records.outages = 2
    await scene.broker.accept([call()])
    await until(lambda: bool(scene.records.answered))
    assert scene.tools.ran == ["echo"]
    assert scene.fatal == []


async def test_stopping_waits_for_open_calls() -> None:
    scene = Scene()
    await scene.broker.start()
    await scene.broker.accept([call("slow")])
    await until(lambda: scene.tools.ran == ["slow"])
    stopping = asyncio.create_task(scene.broker.stop())
    await asyncio.sleep(0)
    scene.tools.gate.set()
    await stopping
    assert scene.records.answered == {"call_1"}
    assert scene.records.released == []


async def test_calls_that_do_not_end_in_time_are_given_back() -> None:
    scene = Scene(drain_seconds=0.01)
    await scene.broker.accept([call("slow")])
    await until(lambda: scene.tools.ran == ["slow"])
    await scene.broker.stop()
    assert scene.records.released == ["call_1"]
    assert scene.results.sent == []
