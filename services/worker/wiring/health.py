"""How one sees that the worker still works: its probes and the server that answers them."""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette

from services.kit.consumer import Consumers
from services.kit.database import ping
from services.kit.health import Health, Probe, ProgressWatch, Reader
from services.kit.http import HttpServer, health_routes
from services.worker.control import Control
from services.worker.wiring.commands import Commands
from services.worker.wiring.runs import McpTools
from services.worker.wiring.shared import Shared

_LIVENESS_SECONDS = 60.0


def wire_server(
    shared: Shared, mcp: McpTools, commands: Commands, consumers: Consumers, control: Control
) -> HttpServer:
    """Wire the probes: alive while commands move, or none is taken since the worker is full."""
    settings = shared.settings

    def moving(reader: Reader) -> Probe:
        return ProgressWatch(reader, shared.clock, seconds=_LIVENESS_SECONDS).moving

    commands_move = moving(consumers)

    async def taking_on() -> bool:
        return commands.intake.full or await commands_move()

    health = Health(
        readiness={"database": partial(ping, shared.engine), "mcp_servers": mcp.catalog.ready},
        liveness={
            "commands": taking_on,
            "orders": moving(control.tail),
            "results": moving(mcp.results),
            "servers": moving(mcp.catalog.tail),
        },
    )
    return HttpServer(
        Starlette(routes=health_routes(health)),
        host=settings.host,
        port=settings.port,
        drain_seconds=1,
    )
