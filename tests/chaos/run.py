"""One run: load, the faults of the plan, recoveries, the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.environment import NotBackError, Say, System
from tests.chaos.faults import strike
from tests.chaos.ledger import check
from tests.chaos.load import Load
from tests.chaos.probes import Probes
from tests.chaos.schedule import LEASE_S, Fault, Round

RECOVERY_S = 10.0 + LEASE_S
"""The bar: ten seconds beyond the lease."""
LONGEST_RECOVERY_S = 60.0
GRACE_S = 90.0
"""What open clients get at the end."""
DRAIN_S = 90.0


@dataclass
class Recovery:
    """How long a round took to be forgotten; `seconds` is None when it was not."""

    faults: list[str]
    met: list[str]
    at_s: float
    over_s: float
    seconds: float | None
    last_problem: str

    @property
    def violation(self) -> str | None:
        """What the bar says to it."""
        if self.seconds is not None and self.seconds <= RECOVERY_S:
            return None
        length = "not" if self.seconds is None else f"only after {self.seconds:.1f} s"
        what = " + ".join(fault.strip() for fault in self.faults)
        return f"recovery: {length} within {RECOVERY_S:g} s of [{what}]: {self.last_problem}"


@dataclass
class Outcome:
    """What a run found."""

    planned: list[str]
    recoveries: list[Recovery] = field(default_factory=list)
    skipped_rounds: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


class Run:
    """Lets a plan happen to a system under load."""

    def __init__(self, system: System, rounds: Sequence[Round], say: Say) -> None:
        self._system = system
        self._rounds = rounds
        self._say = say
        self._began = time.monotonic()
        self.outcome = Outcome([str(fault) for one in rounds for fault in one.faults])

    async def go(self, *, seconds: float, seed: int, rate: float) -> Outcome:
        """Return what was found, after everything is healed and the books are held together."""
        system = self._system
        load = Load(
            intakes=system.intakes,
            admin_key=system.stack.admin_key,
            upstream_control_url=system.upstream.url,
            seed=seed,
            rate=rate,
            executions=system.executions,
        )
        probes = Probes(system.intakes, system.stack.admin_key)
        await load.start()
        try:
            self._began = time.monotonic()
            await self._rounds_within(seconds, probes)
            await self._until(seconds)
        finally:
            await system.proxy.heal()
            self._say("faults are over; the clients come to their end")
            await load.stop(GRACE_S)
            await probes.close()
        self._say("holding the books together")
        report = await check(
            load=load,
            kafka_bootstrap=system.kafka,
            database_url=system.database_url,
            intakes=system.intakes,
            admin_key=system.stack.admin_key,
            upstream_control_url=system.upstream.url,
            blobs=system.s3,
            drain_seconds=DRAIN_S,
        )
        self.outcome.counts = dict(report.counts)
        self.outcome.violations += report.violations
        return self.outcome

    async def _rounds_within(self, seconds: float, probes: Probes) -> None:
        for number, one in enumerate(self._rounds):
            if self._now() > seconds:
                self.outcome.skipped_rounds = len(self._rounds) - number
                return
            # Later than planned when an earlier round took long; in the same order.
            await self._until(one.at_s)
            recovery = await self._round(one, probes)
            self.outcome.recoveries.append(recovery)
            if recovery.violation is not None:
                self.outcome.violations.append(recovery.violation)

    async def _round(self, one: Round, probes: Probes) -> Recovery:
        began_s = self._now()
        met = await asyncio.gather(
            *(self._strike(fault, fault.at_s - one.at_s) for fault in one.faults)
        )
        over = time.monotonic()
        seconds, problem = await probes.recovered(since=over, within_s=LONGEST_RECOVERY_S)
        told = "did not recover" if seconds is None else f"recovered after {seconds:.1f} s"
        self._say(f"{told}{f' ({problem})' if problem else ''}")
        return Recovery(
            faults=[str(fault) for fault in one.faults],
            met=list(met),
            at_s=round(began_s, 1),
            over_s=round(over - self._began, 1),
            seconds=None if seconds is None else round(seconds, 2),
            last_problem=problem,
        )

    async def _strike(self, fault: Fault, wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        began = time.monotonic()
        try:
            met = await strike(self._system, fault)
        except NotBackError as error:
            self.outcome.violations.append(f"{fault}: {error}")
            met = str(error)
        self._say(f"{fault} ({met}), over after {time.monotonic() - began:.1f} s")
        return met

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self._now()))
