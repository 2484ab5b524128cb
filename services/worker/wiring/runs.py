"""What runs responses and operations: attempts at providers, with the tools in between."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from contracts.topics import TOOLS_RESULTS
from services.kit.ids import new_id
from services.kit.seal import Sealer
from services.kit.tail import Tail
from services.worker.clients import KafkaFacts, WorkerTools
from services.worker.operations.answers import Answers, Vendor
from services.worker.operations.runner import OperationRunner
from services.worker.runs.attempts import Attempts
from services.worker.runs.recovery import ReadBack
from services.worker.runs.tries import Limits
from services.worker.seals import ItemSeals
from services.worker.service import ResponseRunner
from services.worker.settings import WorkerSettings
from services.worker.tools.mcp import McpCaller, McpCatalog
from services.worker.wiring.providers import Connections
from services.worker.wiring.shared import Shared


@dataclass(frozen=True, slots=True)
class McpTools:
    """`catalog` and `results` are parts that start and stop."""

    catalog: McpCatalog
    caller: McpCaller
    results: Tail


@dataclass(frozen=True, slots=True)
class Runners:
    """`operations` takes every command; it passes on to `responses` what is no operation."""

    responses: ResponseRunner
    operations: OperationRunner


def wire_mcp(shared: Shared) -> McpTools:
    """Wire the calls of MCP tools, which another service makes."""
    settings = shared.settings
    caller = McpCaller(
        shared.producer,
        shared.clock,
        partition=_results_partition(settings),
        timeout_seconds=settings.tool_timeout_seconds,
    )
    return McpTools(
        catalog=McpCatalog(settings.kafka_bootstrap, dead_letters=shared.dead_letters),
        caller=caller,
        results=caller.tail(settings.kafka_bootstrap, dead_letters=shared.dead_letters),
    )


def wire_runners(shared: Shared, connections: Connections, mcp: McpTools) -> Runners:
    """Wire what takes a job to its end."""
    settings, clock = shared.settings, shared.clock
    seals = ItemSeals(Sealer(settings.antiphon_seal_secret.get_secret_value().split(",")))
    attempts = Attempts(
        upstreams=connections.serving,
        tools=WorkerTools(mcp.catalog, mcp.caller),
        clock=clock,
        new_id=new_id,
        limits=Limits(max_turns=settings.max_turns, max_event_bytes=settings.max_event_bytes),
        seals=seals,
        metrics=shared.metrics,
        vendors={
            name: vendor
            for name, vendor in connections.vendors.items()
            if connections.by_name[name].config.background
        },
    )
    responses = ResponseRunner(
        attempts=attempts,
        facts=KafkaFacts(shared.producer, shared.blobs, clock),
        clock=clock,
        read_back=ReadBack(settings.kafka_bootstrap, shared.blobs, most=settings.max_log_reads),
        tracing=shared.tracing,
    )
    vendors = dict[str, Vendor](connections.vendors)
    operations = OperationRunner(
        responses=responses,
        answers=Answers(vendors, attempts.tools, seals, clock, new_id),
        upstreams=attempts.upstreams,
        facts=responses.facts,
        clock=clock,
        read_back=responses.read_back,
    )
    return Runners(responses, operations)


def _results_partition(settings: WorkerSettings) -> int:
    """Return where results of tools come to: as set, else one that the worker's name gives."""
    if settings.results_partition is None:
        return zlib.crc32(settings.name.encode()) % TOOLS_RESULTS.partitions
    return settings.results_partition
