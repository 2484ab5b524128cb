"""MCP servers of the broker as the worker sees them: their tools, and calls through Kafka."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta

from contracts.principal import Principal
from contracts.responses import RunResponseV1
from contracts.tools import CallMcpToolV1, McpServerDiscoveredV1, ToolResultV1
from contracts.topics import MCP_COMMANDS, MCP_SERVERS, TOOLS_RESULTS
from services.kit.clock import Clock
from services.kit.codec import Stamp, decode, encode
from services.kit.deadletters import DeadLetters, Record
from services.kit.producer import Producer
from services.kit.tail import Tail


@dataclass(frozen=True, slots=True)
class McpCall:
    """One call the model asked for. `position` counts the calls of a response from 0."""

    server_label: str
    tool: str
    arguments: str
    position: int

    def call_id(self, response_id: str) -> str:
        """Return an id that is the same whenever this response makes this call again."""
        parts = (response_id, str(self.position), self.server_label, self.tool, self.arguments)
        return "call_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class McpCatalog:
    """The state of all MCP servers, kept in memory from the compacted topic `mcp.servers`."""

    def __init__(self, bootstrap: str, *, dead_letters: DeadLetters) -> None:
        self._servers: dict[str, McpServerDiscoveredV1] = {}
        self.tail = Tail(
            bootstrap,
            topic=MCP_SERVERS.name,
            partitions=[0],
            on_record=self._learn,
            dead_letters=dead_letters,
            start="earliest",
        )

    async def start(self) -> None:
        """Begin to follow the topic."""
        await self.tail.start()

    async def stop(self) -> None:
        """Stop following."""
        await self.tail.stop()

    async def ready(self) -> bool:
        """Whether everything that was on the topic at the start is known."""
        return self.tail.caught_up.is_set()

    def server(self, label: str) -> McpServerDiscoveredV1 | None:
        """Return what is known of a server, None if the broker has none of that label."""
        return self._servers.get(label)

    def _learn(self, record: Record) -> None:
        if record.value is None:
            self._servers.pop((record.key or b"").decode(), None)
            return
        data = decode(record.value).data
        if isinstance(data, McpServerDiscoveredV1):
            self._servers[data.server_label] = data


class McpCaller:
    """Sends calls to the broker and waits for their results on one partition of `tools.results`."""

    def __init__(
        self, producer: Producer, clock: Clock, *, partition: int, timeout_seconds: float
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._partition = partition
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[str, asyncio.Future[ToolResultV1]] = {}

    def tail(self, bootstrap: str, *, dead_letters: DeadLetters) -> Tail:
        """Return the tail that hears the results; the caller starts and stops it."""
        return Tail(
            bootstrap,
            topic=TOOLS_RESULTS.name,
            partitions=[self._partition],
            on_record=self._deliver,
            dead_letters=dead_letters,
        )

    async def call(self, command: RunResponseV1, call: McpCall) -> ToolResultV1:
        """Call the tool and return its result; a timeout is a result with that error."""
        call_id = call.call_id(command.response_id)
        waiter = self._waiting.setdefault(call_id, asyncio.get_running_loop().create_future())
        now = self._clock.now()
        message = CallMcpToolV1(
            call_id=call_id,
            response_id=command.response_id,
            principal=command.principal,
            server_label=call.server_label,
            tool=call.tool,
            arguments=call.arguments,
            reply_partition=self._partition,
            deadline=now + timedelta(seconds=self._timeout_seconds),
        )
        stamp = Stamp(event_id=call_id, source="/worker", subject=command.response_id, time=now)
        try:
            await self._producer.send(
                MCP_COMMANDS.name, encode(message, stamp), key=command.response_id
            )
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.shield(waiter)
        except TimeoutError:
            return _timed_out(message, command.principal, self._timeout_seconds)
        finally:
            self._waiting.pop(call_id, None)

    def _deliver(self, record: Record) -> None:
        data = decode(record.value or b"").data
        if isinstance(data, ToolResultV1):
            waiter = self._waiting.get(data.call_id)
            if waiter is not None and not waiter.done():
                waiter.set_result(data)


def _timed_out(message: CallMcpToolV1, principal: Principal, seconds: float) -> ToolResultV1:
    return ToolResultV1(
        call_id=message.call_id,
        response_id=message.response_id,
        principal=principal,
        executor="mcp_broker",
        server_label=message.server_label,
        tool=message.tool,
        output="",
        error="timeout",
        message=f"the tool gave no result within {seconds:g} s",
        latency_ms=seconds * 1000,
    )
