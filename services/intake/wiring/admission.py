"""Who may ask and how much: the keys and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from services.intake.admission.keys import ApiKeys
from services.intake.admission.limiter import Patience, RateLimiter
from services.intake.admission.limits_store import LimitSweeper, SharedLimits
from services.intake.admission.seats import SeatBounds, Seats
from services.intake.admission.settling import Settler
from services.intake.wiring.shared import Shared
from services.kit.database import create_engine
from services.kit.tail import Tail


@dataclass(frozen=True, slots=True)
class Admission:
    """`key_tail`, `limiter` and `sweeper` are parts that start and stop."""

    keys: ApiKeys
    seats: Seats
    key_tail: Tail
    limiter: RateLimiter
    settler: Settler
    sweeper: LimitSweeper


def wire_admission(shared: Shared) -> Admission:
    """Wire the keys and seats, which are in memory, and the limits, which are in the database."""
    settings = shared.settings
    keys = ApiKeys(
        shared.producer,
        shared.clock,
        admin_secret=settings.antiphon_admin_key.get_secret_value(),
        most=settings.max_keys,
    )
    # A connection of its own: who is limited does not wait behind reads, nor they behind him.
    engine = create_engine(settings.database_url, pool_size=2, name="intake-limits")
    limits = SharedLimits(engine, debt_minutes=settings.limit_debt_minutes)
    patience = Patience(
        answer_seconds=settings.limit_timeout_seconds,
        pause_seconds=settings.limit_pause_seconds,
        waiting=settings.max_open_requests,
    )
    return Admission(
        keys=keys,
        seats=Seats(
            SeatBounds(
                most=settings.max_open_requests,
                body_bytes=settings.max_bodies_bytes,
                fair_from=settings.fair_share_from,
            )
        ),
        key_tail=keys.tail(settings.kafka_bootstrap, dead_letters=shared.dead_letters),
        limiter=RateLimiter(limits, shared.clock, patience),
        settler=Settler(keys.limits_of, limits),
        sweeper=LimitSweeper(limits, engine, hours=settings.limit_reservation_hours),
    )
