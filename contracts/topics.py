"""Every topic of the platform: what it carries, who writes and reads it, how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from contracts.artifacts import ArtifactExpiredV1, ArtifactStoredV1
from contracts.config import ApiKeyChangedV1
from contracts.costs import CostRecordedV1
from contracts.event import Contract
from contracts.operations import CompactConversationV1, CountInputTokensV1
from contracts.responses import (
    CancelResponseV1,
    ResponseDeletedV1,
    ResponseFinishedV1,
    ResponseStartedV1,
    RunResponseV1,
)
from contracts.tools import CallMcpToolV1, McpServerDiscoveredV1, ToolResultV1

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FOREVER_MS = -1
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
CLAIM_CHECK_BYTES = 512 * 1024
"""A payload above this size travels by reference."""

CleanupPolicy = Literal["delete", "compact"]


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One Kafka topic. `retention_ms` of -1 keeps messages for ever.

    `owner` writes, `readers` consume in a group of their own name; `tails` read every message of a
    partition without a group. A topic that carries `contracts` of none carries packs (see
    `contracts.packs`). `hashed` says that the hash of the key picks the partition, so order holds
    per key and the number of partitions can't change; otherwise the writer names the partition.
    """

    name: str
    key: str
    partitions: int
    retention_ms: int
    owner: tuple[str, ...]
    description: str
    readers: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    contracts: tuple[type[Contract], ...] = ()
    cleanup_policy: CleanupPolicy = "delete"
    hashed: bool = True
    max_message_bytes: int = MAX_MESSAGE_BYTES
    extra_config: dict[str, str] = field(default_factory=dict)

    @property
    def dead_letters(self) -> str:
        """The topic for messages that a reader could not handle, with the reason in headers."""
        return f"{self.name}.dlq"

    @property
    def config(self) -> dict[str, str]:
        """Broker-side settings of the topic, by Kafka's own names."""
        return {
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            **self.extra_config,
        }


RESPONSES_COMMANDS = Topic(
    name="responses.commands",
    key="response id",
    partitions=12,
    retention_ms=7 * DAY_MS,
    owner=("intake", "worker"),
    readers=("worker", "intake"),
    hashed=False,
    contracts=(RunResponseV1, CountInputTokensV1, CompactConversationV1),
    description="Accepted requests: responses to run, tokens to count, conversations to compact. "
    "Its acknowledgement is the promise to answer.",
)
RESPONSES_EVENTS = Topic(
    name="responses.events",
    key="none; the partition is the reader's",
    partitions=8,
    retention_ms=HOUR_MS,
    hashed=False,
    owner=("worker",),
    tails=("intake", "worker"),
    description="Stream events of all responses, in packs of bytes.",
    extra_config={"segment.ms": str(HOUR_MS // 4)},
)
RESPONSES_CONTROL = Topic(
    name="responses.control",
    key="response id",
    partitions=1,
    retention_ms=HOUR_MS,
    owner=("intake",),
    tails=("worker",),
    contracts=(CancelResponseV1,),
    description="Orders about responses under way, heard by every worker.",
)
RESPONSES_LIFECYCLE = Topic(
    name="responses.lifecycle",
    key="response id",
    partitions=12,
    retention_ms=7 * DAY_MS,
    owner=("worker", "intake"),
    readers=("intake", "costs", "artifacts", "webhooks"),
    hashed=False,
    contracts=(ResponseStartedV1, ResponseFinishedV1, ResponseDeletedV1),
    description="Facts about whole responses: started, finished, deleted.",
)
MCP_COMMANDS = Topic(
    name="mcp.commands",
    key="response id",
    partitions=6,
    retention_ms=DAY_MS,
    owner=("worker",),
    readers=("mcp_broker",),
    contracts=(CallMcpToolV1,),
    description="Calls of tools on MCP servers.",
)
TOOLS_RESULTS = Topic(
    name="tools.results",
    key="response id; the partition is the waiting worker's",
    partitions=8,
    retention_ms=DAY_MS,
    hashed=False,
    owner=("mcp_broker",),
    readers=("costs",),
    tails=("worker",),
    contracts=(ToolResultV1,),
    description="Results of tool calls, for the waiting worker and for the ledger.",
)
MCP_SERVERS = Topic(
    name="mcp.servers",
    key="server label",
    partitions=1,
    retention_ms=FOREVER_MS,
    owner=("mcp_broker",),
    tails=("worker",),
    contracts=(McpServerDiscoveredV1,),
    cleanup_policy="compact",
    description="MCP servers and their tools, as the broker sees them.",
)
ARTIFACTS_STORED = Topic(
    name="artifacts.stored",
    key="artifact id",
    partitions=6,
    retention_ms=7 * DAY_MS,
    owner=("artifacts",),
    readers=("analytics",),
    contracts=(ArtifactStoredV1,),
    description="Files of responses that are durable now.",
)
ARTIFACTS_EXPIRED = Topic(
    name="artifacts.expired",
    key="artifact id",
    partitions=6,
    retention_ms=7 * DAY_MS,
    owner=("artifacts",),
    readers=("analytics",),
    contracts=(ArtifactExpiredV1,),
    description="Artifacts that are gone.",
)
COSTS_RECORDED = Topic(
    name="costs.recorded",
    key="response id",
    partitions=6,
    retention_ms=30 * DAY_MS,
    owner=("costs",),
    readers=("analytics",),
    contracts=(CostRecordedV1,),
    description="Ledger lines, priced or with the reason why not.",
)
CONFIG_CHANGED = Topic(
    name="config.changed",
    key="kind/id",
    partitions=1,
    retention_ms=FOREVER_MS,
    owner=("intake",),
    tails=("intake",),
    contracts=(ApiKeyChangedV1,),
    cleanup_policy="compact",
    description="Configuration that replicas keep in memory, API keys among it.",
)

EXTERNAL_READERS = frozenset({"analytics"})
"""Readers outside the platform: teams that consume facts on their own."""

TOPICS: tuple[Topic, ...] = (
    RESPONSES_COMMANDS,
    RESPONSES_EVENTS,
    RESPONSES_CONTROL,
    RESPONSES_LIFECYCLE,
    MCP_COMMANDS,
    TOOLS_RESULTS,
    MCP_SERVERS,
    ARTIFACTS_STORED,
    ARTIFACTS_EXPIRED,
    COSTS_RECORDED,
    CONFIG_CHANGED,
)
DEAD_LETTER_RETENTION_MS = 14 * DAY_MS

DEAD_LETTER_HEADROOM_BYTES = 64 * 1024
"""What a dead letter may be larger than the message it keeps, for the headers that it adds."""

DEAD_LETTER_HEADERS: dict[str, str] = {
    "antiphon-dlq-reason": "Name and text of the error, cut to 8,000 bytes.",
    "antiphon-dlq-stack": "The end of the stack trace, cut to 8,000 bytes.",
    "antiphon-dlq-service": "The service that gave up.",
    "antiphon-dlq-topic": "The topic that the message came from.",
    "antiphon-dlq-partition": "Its partition there, a decimal number.",
    "antiphon-dlq-offset": "Its offset there, a decimal number.",
    "antiphon-dlq-attempts": "How often it was tried, a decimal number.",
}
"""What a dead letter carries after the headers of the message that it keeps."""
