"""The worker's composition root: joins the areas that `wiring` makes, and starts them in order."""

from __future__ import annotations

from services.kit.runtime import Part, Runtime, run_service
from services.worker.settings import WorkerSettings
from services.worker.wiring.commands import (
    wire_commands,
    wire_consumers,
    wire_control,
    wire_leases,
    wire_queue,
)
from services.worker.wiring.health import wire_server
from services.worker.wiring.providers import wire_providers
from services.worker.wiring.runs import wire_mcp, wire_runners
from services.worker.wiring.shared import wire_shared


async def compose(settings: WorkerSettings, runtime: Runtime) -> None:
    """Wire the worker."""
    shared = wire_shared(settings, runtime)
    connections = wire_providers(shared)
    mcp = wire_mcp(shared)
    runners = wire_runners(shared, connections, mcp)
    leases = wire_leases(shared, runners)
    queue = wire_queue(shared, leases)
    commands = wire_commands(shared, runners, leases, queue)
    consumers = wire_consumers(shared, leases, commands)
    control = wire_control(shared, runners, leases, queue)
    # They start in this order and stop in reverse: no command is taken on before all that it needs.
    parts: tuple[Part, ...] = (
        shared.producer,
        *connections.clients,
        commands.outbox,
        mcp.catalog,
        mcp.results,
        leases.keeper,
        commands.intake,
        control,
        queue.reader,
        queue.dispatcher,
        consumers,
        leases.sweeper,
        wire_server(shared, mcp, commands, consumers, control),
    )
    for part in parts:
        runtime.add(part)


def main() -> None:
    """Run the worker until it is told to stop."""
    run_service("worker", WorkerSettings, compose)


if __name__ == "__main__":
    main()
