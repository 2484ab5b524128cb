"""What the broker writes: results of calls, and the servers as it sees them."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.errors import KafkaError

from contracts.tools import McpServerDiscoveredV1, ToolResultV1
from contracts.topics import MCP_SERVERS, TOOLS_RESULTS
from services.kit.clock import Clock
from services.kit.codec import Stamp, encode
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.kit.retry import Backoff
from services.kit.tail import read_range
from services.kit.tasks import TaskSet
from services.mcp_broker.clients.connection import ServerState

logger = logging.getLogger(__name__)

SOURCE = "/mcp_broker"
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)
_MAX_FAILURES = 10


class ResultPublisher:
    """Sends the results of calls to the partition where somebody waits for them."""

    def __init__(self, producer: Producer, clock: Clock) -> None:
        self._producer = producer
        self._clock = clock

    def encode(self, result: ToolResultV1, *, traceparent: str | None) -> bytes:
        """Return the message; its id follows from the call's, so that a repeat is recognised."""
        stamp = Stamp(
            event_id=f"{result.call_id}.result",
            source=SOURCE,
            subject=result.response_id,
            time=self._clock.now(),
            traceparent=traceparent,
        )
        return encode(result, stamp)

    async def send(self, message: bytes, *, response_id: str, partition: int) -> None:
        """Return once the result is durable; raises `KafkaError`."""
        await self._producer.send(TOOLS_RESULTS.name, message, key=response_id, partition=partition)


class DiscoveryPublisher:
    """Keeps the compacted topic of servers equal to what the broker sees.

    Labels on the topic that no longer stand in the file get a tombstone at the start. A state that
    could not be written is tried again for as long as it takes; only the newest of a server counts.
    """

    def __init__(
        self, producer: Producer, *, bootstrap: str, labels: frozenset[str], clock: Clock
    ) -> None:
        self._producer = producer
        self._bootstrap = bootstrap
        self._labels = labels
        self._clock = clock
        self._waiting: dict[str, ServerState | None] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskSet()

    def publish(self, state: ServerState) -> None:
        """Have the state written soon; never blocks."""
        self._waiting[state.label] = state
        self._wake.set()

    async def start(self) -> None:
        """Begin to write."""
        self._tasks.spawn(self._run(), name="publish mcp servers")

    async def stop(self) -> None:
        """Stop writing; what the servers are then is not this process's to say any more."""
        await self._tasks.stop()

    async def alive(self) -> bool:
        """Whether the writing goes on."""
        return not self._tasks.failed.is_set()

    async def _run(self) -> None:
        failures, forgotten = 0, False
        while True:
            try:
                if not forgotten:
                    await self._forget_removed()
                    forgotten = True
                await self._flush()
                failures = 0
                await self._wake.wait()
                self._wake.clear()
            except KafkaError as error:
                failures = min(failures + 1, _MAX_FAILURES)
                logger.warning("the topic of MCP servers is not up to date: %r", error)
                await asyncio.sleep(_BACKOFF.pause(failures))

    async def _flush(self) -> None:
        while self._waiting:
            label, state = next(iter(self._waiting.items()))
            await self._producer.send(
                MCP_SERVERS.name, None if state is None else self._encode(state), key=label
            )
            if self._waiting.get(label) is state:
                del self._waiting[label]

    def _encode(self, state: ServerState) -> bytes:
        discovered = McpServerDiscoveredV1(
            server_label=state.label,
            transport=state.transport,
            status=state.status,
            tools=list(state.tools),
            error=state.error,
        )
        stamp = Stamp(
            event_id=new_id("evt"), source=SOURCE, subject=state.label, time=self._clock.now()
        )
        return encode(discovered, stamp)

    async def _forget_removed(self) -> None:
        known: set[str] = set()
        batches = read_range(
            self._bootstrap,
            topic=MCP_SERVERS.name,
            partition=0,
            since_ms=0,
        )
        async for records in batches:
            for record in records:
                label = (record.key or b"").decode(errors="replace")
                (known.discard if record.value is None else known.add)(label)
        for label in sorted(known - self._labels):
            logger.info("MCP server %s is no longer configured", label)
            self._waiting[label] = None
