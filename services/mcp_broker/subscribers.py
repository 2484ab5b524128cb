"""The Kafka edge: commands to call tools."""

from __future__ import annotations

from typing import cast

from contracts.tools import CallMcpToolV1
from contracts.topics import MCP_COMMANDS
from services.kit.batches import Received, Subscription
from services.kit.health import ProgressWatch
from services.mcp_broker.service import Accepted, Broker

GROUP = "mcp_broker"


def commands(broker: Broker, watch: ProgressWatch, *, max_records: int) -> Subscription:
    """Return the subscription to the broker's commands; its handler returns after the claim."""

    async def on_call_mcp_tool(batch: list[Received]) -> None:
        await broker.accept(
            [
                Accepted(
                    command=cast("CallMcpToolV1", received.envelope.data),
                    traceparent=received.envelope.traceparent,
                )
                for received in batch
            ]
        )
        watch.handled(len(batch))

    return Subscription(
        topics=(MCP_COMMANDS.name,),
        group=GROUP,
        types=frozenset({CallMcpToolV1.TYPE}),
        handle=on_call_mcp_tool,
        max_records=max_records,
    )
