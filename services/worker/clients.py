"""The worker's way to Kafka for facts, to the tools, and to its providers as one set."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import orjson
from aiokafka.errors import KafkaError

from contracts.providers import ProviderConfig
from contracts.responses import ResponseFinishedV1, ResponseStartedV1
from contracts.tools import ToolResultV1
from contracts.topics import RESPONSES_LIFECYCLE
from services.kit.blobs.store import BlobStore
from services.kit.claimcheck import check_in
from services.kit.clock import Clock
from services.kit.codec import Stamp, encode
from services.kit.producer import Producer
from services.kit.retry import TWO_MINUTES, retry
from services.kit.together import Together
from services.worker.domain import Job
from services.worker.providers.client import UpstreamClient
from services.worker.providers.turns import Turns
from services.worker.tools.mcp import McpCall, McpCaller, McpCatalog
from services.worker.tools.plan import ToolPlan, plan_tools

logger = logging.getLogger(__name__)
_GATHER_SECONDS = 0.015


@dataclass(frozen=True)
class ProviderConnection:
    """One provider: its settings, its HTTP client and its model turns."""

    config: ProviderConfig
    client: UpstreamClient
    turns: Turns


class KafkaFacts:
    """States facts on `responses.lifecycle`, large responses by claim check."""

    def __init__(self, producer: Producer, blobs: BlobStore, clock: Clock) -> None:
        self._producer = producer
        self._blobs = blobs
        self._clock = clock
        # Nobody waits for a fact: those of some ms travel in one request to Kafka.
        self._together = Together(seconds=_GATHER_SECONDS)

    async def started(self, job: Job) -> None:
        """State that a background response is being worked on."""
        fact = ResponseStartedV1(
            response_id=job.response_id, attempt=job.attempt, principal=job.command.principal
        )
        await self._send(encode(fact, self._stamp(job, f"started:{job.attempt}")), job)

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        """State the outcome; returns once it is durable, raises `KafkaError` or `OSError`."""
        claim = await retry(
            lambda: check_in(
                self._blobs, key=f"{job.response_id}-response-{job.attempt}", payload=response
            ),
            on=(OSError,),
            backoff=TWO_MINUTES,
        )
        raw = (
            {"response": response}
            if claim is None
            else {"payload": orjson.dumps(claim.model_dump())}
        )
        await self._send(encode(fact, self._stamp(job, "finished"), raw=raw), job)

    def _stamp(self, job: Job, what: str) -> Stamp:
        return Stamp(
            event_id=f"{job.response_id}:{what}",
            source="/worker",
            subject=job.response_id,
            time=self._clock.now(),
            traceparent=job.traceparent,
        )

    async def _send_once(self, value: bytes, response_id: str) -> None:
        topic = RESPONSES_LIFECYCLE.name
        await self._together.wait()
        partition = await self._producer.spread(topic)
        await self._producer.send(topic, value, key=response_id, partition=partition)

    async def _send(self, value: bytes, job: Job) -> None:
        await retry(
            lambda: self._send_once(value, job.response_id),
            on=(KafkaError,),
            backoff=TWO_MINUTES,
        )


class WorkerTools:
    """The tools that run outside of the provider: today the MCP servers of the broker."""

    def __init__(self, catalog: McpCatalog, caller: McpCaller) -> None:
        self._catalog = catalog
        self._caller = caller

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        """Sort the request's tools; raises `RequestRefusedError`."""
        return plan_tools(
            job.request.get("tools") or [],
            hosted=provider.hosted_tools,
            dialect=provider.dialect,
            server=self._catalog.server,
        )

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        """Run one call; every failure is a result."""
        return await self._caller.call(job.command, call)
