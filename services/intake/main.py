"""Intake's composition root: joins the areas that `wiring` makes, and starts them in order."""

from __future__ import annotations

from services.intake.settings import IntakeSettings
from services.intake.wiring.admission import wire_admission
from services.intake.wiring.history import wire_history
from services.intake.wiring.projection import wire_health, wire_projection
from services.intake.wiring.shared import wire_shared
from services.intake.wiring.streams import wire_streams
from services.intake.wiring.use_cases import wire_use_cases
from services.intake.wiring.web import Inside, wire_app, wire_draining, wire_server
from services.kit.runtime import Part, Runtime, run_service


async def compose(settings: IntakeSettings, runtime: Runtime) -> None:
    """Wire intake."""
    shared = wire_shared(settings)
    admission = wire_admission(shared)
    streams = await wire_streams(shared)
    history = wire_history(shared)
    use_cases = wire_use_cases(shared, admission, streams, history)
    consumers = wire_projection(shared, admission, history, runtime)
    health = wire_health(shared, admission, streams, consumers)
    app = wire_app(shared, Inside(admission, streams, history, use_cases), health)
    if streams.seat is not None:
        runtime.add(streams.seat)
    # They start in this order and stop in reverse: the server comes late and goes early.
    parts: tuple[Part, ...] = (
        admission.sweeper,
        shared.producer,
        admission.key_tail,
        streams.hubs,
        shared.clients,
        consumers,
        use_cases.sweeper,
        admission.limiter,
        wire_server(settings, app),
        wire_draining(settings, health, streams),
    )
    for part in parts:
        runtime.add(part)


def main() -> None:
    """Run intake until it is told to stop."""
    run_service("intake", IntakeSettings, compose)


if __name__ == "__main__":
    main()
