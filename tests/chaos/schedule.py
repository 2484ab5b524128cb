"""Which faults come when: a pure function of a seed, without clock or system."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

LEASE_S = 5.0
"""What the workers of a run are told; a zombie is away for longer."""
SERVICES = (
    *("intake", "intake-2", "worker", "worker-2"),
    *("mcp_broker", "artifacts", "costs", "webhooks"),
)
PAUSED = ("worker", "worker-2", "worker", "worker-2", "intake", "mcp_broker", "artifacts", "costs")
ROUTES = ("kafka", "postgres", "upstream", "s3")
GROUPS = ("worker", "intake", "costs", "artifacts", "webhooks")
REPEATED = (
    *("responses.commands", "responses.lifecycle", "responses.events"),
    *("tools.results", "mcp.commands"),
)
ALL = "all"
FIRST_AT_S = 4.0
CALM_AT_END_S = 6.0
OVERLAPS = 0.25
"""How often a second fault comes while the first one lasts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong `at_s` seconds after the start and is over `seconds` later.

    What is killed is over when its supervisor has it ready again. `target` is a part, a route, a
    group or a topic; `who` the service whose connections are meant, or all.
    """

    at_s: float
    kind: str
    target: str
    seconds: float = 0.0
    who: str = ALL
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        details = [f"{name}={value:g}" for name, value in self.numbers.items()]
        if self.who != ALL:
            details.insert(0, f"of {self.who}")
        length = f" for {self.seconds:.1f} s" if self.seconds else ""
        return " ".join([f"{self.at_s:6.1f} s  {self.kind} {self.target}{length}", *details])


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that overlap, or one alone; a time to recover follows."""

    faults: tuple[Fault, ...]

    @property
    def at_s(self) -> float:
        """When its first fault comes."""
        return self.faults[0].at_s


Draw = Callable[[random.Random], tuple[str, float, str, dict[str, float]]]
"""Gives target, seconds, who, numbers."""


def _killed(*targets: str) -> Draw:
    return lambda rng: (rng.choice(targets), 0.0, ALL, {})


def _paused(*targets: str) -> Draw:
    return lambda rng: (rng.choice(targets), LEASE_S + rng.uniform(1.5, 5.0), ALL, {})


def _brokers(count: int) -> tuple[str, ...]:
    return tuple("kafka" if number == 1 else f"kafka-{number}" for number in range(1, count + 1))


def _parted(longest_s: float) -> Draw:
    def draw(rng: random.Random) -> tuple[str, float, str, dict[str, float]]:
        who = rng.choice(SERVICES) if rng.random() < 0.5 else ALL
        return rng.choice(ROUTES), rng.uniform(1.0, longest_s), who, {}

    return draw


def _delayed(rng: random.Random) -> tuple[str, float, str, dict[str, float]]:
    delays = {"delay_ms": float(rng.randint(10, 150)), "jitter_ms": float(rng.randint(0, 150))}
    return rng.choice(ROUTES), rng.uniform(4.0, 8.0), ALL, delays


def _throttled(rng: random.Random) -> tuple[str, float, str, dict[str, float]]:
    numbers = {"bytes_per_s": 1_000.0 * rng.choice((32, 64, 128, 256))}
    return rng.choice(ROUTES), rng.uniform(4.0, 8.0), ALL, numbers


def _storm(rng: random.Random) -> tuple[str, float, str, dict[str, float]]:
    # The workers' group twice as often: its members hold what is paid for.
    group = rng.choice(("worker", *GROUPS))
    return group, rng.uniform(4.0, 7.0), ALL, {"joins": float(rng.randint(2, 4))}


def _repeated(rng: random.Random) -> tuple[str, float, str, dict[str, float]]:
    numbers = {"messages": float(rng.choice((50, 100, 200))), "seed": float(rng.randint(1, 10**6))}
    return rng.choice(REPEATED), rng.uniform(2.0, 5.0), ALL, numbers


def kinds(brokers: int) -> dict[str, Draw]:
    """Every kind of fault by its name, for a cluster of so many brokers."""
    names = _brokers(brokers)
    return {
        "kill": _killed(*SERVICES, "worker", "worker-2", "intake"),
        "pause": _paused(*PAUSED),
        "restart": _killed(*SERVICES),
        "kill-broker": _killed(*names),
        "pause-broker": _paused(*names),
        "kill-postgres": _killed("postgres"),
        "kill-s3": _killed("s3"),
        "kill-kafka": _killed(ALL),
        "cut": _parted(4.0),
        "blackhole": _parted(12.0),
        "delay": _delayed,
        "throttle": _throttled,
        "storm": _storm,
        "redeliver": _repeated,
    }


def schedule(
    seed: int, seconds: float, only: Sequence[str] = (), *, brokers: int = 3
) -> tuple[Round, ...]:
    """Plan the rounds of a run; the same arguments give the same plan.

    Kinds are dealt like cards, so that none is left out for long. `only` names the kinds to use;
    raises ValueError for one that there is not.
    """
    draws = kinds(brokers)
    if unknown := set(only) - set(draws):
        raise ValueError(f"unknown faults {sorted(unknown)}; there are {', '.join(draws)}")
    rng = random.Random(seed)
    deck: list[str] = []

    def deal(at_s: float) -> Fault:
        if not deck:
            deck.extend(name for name in draws if not only or name in only)
            rng.shuffle(deck)
        kind = deck.pop()
        target, length, who, numbers = draws[kind](rng)
        return Fault(
            at_s=round(at_s, 1),
            kind=kind,
            target=target,
            seconds=round(length, 1),
            who=who,
            numbers=numbers,
        )

    rounds: list[Round] = []
    at_s = FIRST_AT_S
    while True:
        faults = [deal(at_s)]
        if rng.random() < OVERLAPS:
            faults.append(deal(at_s + rng.uniform(0.2, max(1.0, faults[0].seconds))))
        over_s = max(fault.at_s + fault.seconds for fault in faults)
        if over_s > seconds - CALM_AT_END_S:
            return tuple(rounds)
        rounds.append(Round(tuple(faults)))
        at_s = over_s + rng.uniform(6.0, 12.0)
