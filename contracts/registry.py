"""Every contract, by the type its messages name."""

from __future__ import annotations

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

CONTRACTS: dict[str, type[Contract]] = {
    contract.TYPE: contract
    for contract in (
        RunResponseV1,
        CountInputTokensV1,
        CompactConversationV1,
        CancelResponseV1,
        ResponseStartedV1,
        ResponseFinishedV1,
        ResponseDeletedV1,
        CallMcpToolV1,
        ToolResultV1,
        McpServerDiscoveredV1,
        ArtifactStoredV1,
        ArtifactExpiredV1,
        CostRecordedV1,
        ApiKeyChangedV1,
    )
}
