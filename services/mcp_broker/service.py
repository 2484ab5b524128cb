"""The use cases of the broker: take calls, run them, answer, repair after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from opentelemetry import metrics, trace

from contracts.tools import CallMcpToolV1, ToolResultV1
from services.kit.clock import Clock
from services.kit.retry import TWO_MINUTES, retry
from services.kit.tasks import TaskSet
from services.kit.telemetry import span_from
from services.mcp_broker.domain import Outcome, failure, parse_arguments
from services.mcp_broker.errors import ToolCallFailedError

logger = logging.getLogger(__name__)

EXECUTOR = "mcp_broker"
SWEEP_LIMIT = 100
PURGE_LIMIT = 5_000
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call as it was asked for, and the trace it belongs to."""

    command: CallMcpToolV1
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call that has a record; `result` is the message that answers it, once there is one."""

    call: Accepted
    result: bytes | None


class CallRecords(Protocol):
    """What the broker remembers of calls; `store.PostgresCalls` says what each method promises."""

    async def claim(self, batch: Sequence[Accepted]) -> list[Recorded]: ...  # noqa: D102
    async def take_expired(self, limit: int) -> list[Recorded]: ...  # noqa: D102
    async def renew(self, call_ids: Sequence[str]) -> None: ...  # noqa: D102
    async def finish(self, call_id: str, result: bytes) -> int | None: ...  # noqa: D102
    async def mark_answered(self, call_ids: Sequence[str]) -> None: ...  # noqa: D102
    async def release(self, call_ids: Sequence[str]) -> None: ...  # noqa: D102
    async def purge(self, *, older_than_seconds: float, limit: int) -> int: ...  # noqa: D102


class Tools(Protocol):
    """Who runs tools."""

    def knows(self, label: str, tool: str) -> bool:
        """Whether that server has that tool."""
        ...

    async def call(self, label: str, tool: str, arguments: dict[str, Any]) -> Outcome:
        """Run it; raises `ToolCallFailedError`. Cancelling gives the call up."""
        ...


class Results(Protocol):
    """Where results go."""

    def encode(self, result: ToolResultV1, *, traceparent: str | None) -> bytes:
        """Return the message."""
        ...

    async def send(self, message: bytes, *, response_id: str, partition: int) -> None:
        """Return once the message is durable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the broker needs from outside."""

    records: CallRecords
    tools: Tools
    results: Results
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The bounds of the broker's work. `transient` errors of database and Kafka are retried."""

    lease_seconds: float
    max_call_seconds: float
    retention_seconds: float
    purge_seconds: float
    drain_seconds: float
    transient: tuple[type[Exception], ...]


class Broker:
    """Runs every call that was claimed, in a task of its own.

    A claim is a leased record: if this process dies, the call is run again by whoever sees the
    lease expire, unless its deadline has passed. How many tasks there are is bounded by the
    servers' queues, which refuse what is too much. `on_fatal` is told when database or Kafka stay
    away for so long that results would be lost.
    """

    def __init__(
        self, ports: Ports, policy: Policy, *, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._records = ports.records
        self._tools = ports.tools
        self._results = ports.results
        self._clock = ports.clock
        self._policy = policy
        self._on_fatal = on_fatal
        self._open: dict[str, asyncio.Task[None]] = {}
        self._calls = TaskSet()
        self._upkeep = TaskSet()
        meter = metrics.get_meter("antiphon")
        self._count = meter.create_counter(
            "antiphon.mcp.calls", description="Tool calls by server, tool and outcome"
        )
        self._latency = meter.create_histogram(
            "antiphon.mcp.call_latency", unit="ms", description="Time a tool call took"
        )

    async def start(self) -> None:
        """Take over what a dead process left, now and from now on."""
        renewal = self._policy.lease_seconds / 3
        self._upkeep.spawn(self._every(renewal, self._renew), name="renew leases")
        self._upkeep.spawn(self._every(renewal, self.sweep), name="sweep calls")
        self._upkeep.spawn(self._every(self._policy.purge_seconds, self._purge), name="purge calls")

    async def stop(self) -> None:
        """Let open calls end within the drain time; what is left then is free for others."""
        if self._open:
            await asyncio.wait(self._open.values(), timeout=self._policy.drain_seconds)
        abandoned = list(self._open)
        await self._upkeep.stop()
        await self._calls.stop()
        if abandoned:
            logger.warning("%d calls did not end in time and will be run again", len(abandoned))
            await self._records.release(abandoned)

    async def alive(self) -> bool:
        """Whether leases are renewed and expired ones looked for."""
        return not self._upkeep.failed.is_set()

    async def accept(self, batch: Sequence[Accepted]) -> None:
        """Claim calls in one transaction and start them; a repeated call gets its recorded answer.

        Returns once nothing can be lost: the offsets may be committed then.
        """
        recorded = await self._records.claim(batch)
        known = {record.call.command.call_id for record in recorded}
        for call in batch:
            if call.command.call_id not in known:
                self._begin(call)
        for record in recorded:
            if record.result is not None:
                await self._answer(record)

    async def sweep(self) -> None:
        """Run or answer the calls that nobody works on any more."""
        while True:
            taken = await self._records.take_expired(SWEEP_LIMIT)
            for record in taken:
                if record.result is not None:
                    await self._answer(record)
                else:
                    logger.info("taking over call %s", record.call.command.call_id)
                    self._begin(record.call)
            if len(taken) < SWEEP_LIMIT:
                return

    def _begin(self, call: Accepted) -> None:
        call_id = call.command.call_id
        if call_id in self._open:
            return
        task = self._calls.spawn(self._run(call), name=f"call {call_id}")
        self._open[call_id] = task
        task.add_done_callback(lambda _: self._open.pop(call_id, None))

    async def _run(self, call: Accepted) -> None:
        command = call.command
        started = self._clock.monotonic()
        span = span_from("execute_tool", call.traceparent)
        span.set_attributes(
            {"gen_ai.tool.name": command.tool, "antiphon.mcp.server": command.server_label}
        )
        with trace.use_span(span, end_on_exit=True):
            outcome = await self._outcome(command)
        latency_ms = (self._clock.monotonic() - started) * 1000
        self._measure(command, outcome, latency_ms)
        result = ToolResultV1(
            call_id=command.call_id,
            response_id=command.response_id,
            principal=command.principal,
            executor=EXECUTOR,
            server_label=command.server_label,
            tool=command.tool,
            output=outcome.output,
            content=outcome.content,
            error=outcome.error,
            message=outcome.message,
            latency_ms=round(latency_ms, 3),
        )
        message = self._results.encode(result, traceparent=call.traceparent)
        try:
            await self._settle(command, message)
        except self._policy.transient as error:
            self._on_fatal(error)

    async def _outcome(self, command: CallMcpToolV1) -> Outcome:
        left = (command.deadline - self._clock.now()).total_seconds()
        seconds = min(left, self._policy.max_call_seconds)
        if seconds <= 0:
            return failure("timeout", "the deadline had passed before the call could begin")
        try:
            arguments = parse_arguments(command.arguments)
            async with asyncio.timeout(seconds):
                return await self._tools.call(command.server_label, command.tool, arguments)
        except TimeoutError:
            return failure("timeout", f"no result within {seconds:.1f} s")
        except ToolCallFailedError as error:
            return failure(error.error, error.message)

    async def _settle(self, command: CallMcpToolV1, message: bytes) -> None:
        call_id = command.call_id
        partition = await self._patiently(lambda: self._records.finish(call_id, message))
        if partition is None:
            logger.warning("call %s was taken over by another process", call_id)
            return
        await self._patiently(
            lambda: self._results.send(
                message, response_id=command.response_id, partition=partition
            )
        )
        await self._patiently(lambda: self._records.mark_answered([call_id]))

    async def _answer(self, record: Recorded) -> None:
        command = record.call.command
        await self._results.send(
            record.result or b"",
            response_id=command.response_id,
            partition=command.reply_partition,
        )
        await self._records.mark_answered([command.call_id])

    async def _patiently(self, action: Callable[[], Awaitable[Result]]) -> Result:
        return await retry(action, on=self._policy.transient, backoff=TWO_MINUTES)

    def _measure(self, command: CallMcpToolV1, outcome: Outcome, latency_ms: float) -> None:
        # Names that a model made up would be a series each.
        known = self._tools.knows(command.server_label, command.tool)
        attributes = {
            "server": command.server_label if known else "unknown",
            "tool": command.tool if known else "unknown",
            "outcome": outcome.error or "ok",
        }
        self._count.add(1, attributes)
        self._latency.record(latency_ms, attributes)

    async def _renew(self) -> None:
        if self._open:
            await self._records.renew(list(self._open))

    async def _purge(self) -> None:
        retention = self._policy.retention_seconds
        while True:
            gone = await self._records.purge(older_than_seconds=retention, limit=PURGE_LIMIT)
            if gone < PURGE_LIMIT:
                return

    async def _every(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await action()
            except self._policy.transient as error:
                logger.warning("upkeep failed and is tried again: %r", error)
            await asyncio.sleep(seconds)
