"""`make chaos SECONDS=600 SEED=n`: a system under load, faults by a seed, the books afterwards."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from infra.local.ports import free_port
from infra.local.settings import LocalSettings
from tests.chaos.environment import running_system
from tests.chaos.run import Outcome, Run
from tests.chaos.schedule import Round, schedule

MOST_SEED = 1_000_000
MOST_SHOWN = 20
"""Violations of one area that are printed; the report has all."""


class Said:
    """Prints lines with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one."""
        sys.stdout.write(f"{time.monotonic() - self._began:7.1f} s  {line}\n")
        sys.stdout.flush()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    def env(name: str, default: str) -> str:
        return os.environ.get(name) or default

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(env("SECONDS", "600")))
    parser.add_argument("--seed", type=int, default=int(env("SEED", str(time.time_ns()))))
    parser.add_argument("--brokers", type=int, default=int(env("BROKERS", "3")))
    parser.add_argument("--faults", default=env("FAULTS", ""), help="kinds, parted by commas")
    parser.add_argument("--rate", type=float, default=float(env("RATE", "8")), help="clients/s")
    home = env("CHAOS_HOME", str(LocalSettings.load().home / "chaos"))
    parser.add_argument("--home", type=Path, default=Path(home), help="emptied before the run")
    options = parser.parse_args(arguments)
    options.seed %= MOST_SEED
    options.home = options.home.absolute()
    only = [kind for kind in options.faults.split(",") if kind]
    try:
        options.rounds = schedule(options.seed, options.seconds, only, brokers=options.brokers)
    except ValueError as error:
        parser.error(str(error))
    return options


def _print_plan(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    again = f"make chaos SECONDS={options.seconds:g} SEED={options.seed}"
    again += f" FAULTS={options.faults}" if options.faults else ""
    again += f" BROKERS={options.brokers}" if options.brokers != 3 else ""
    sys.stdout.write(f"Seed {options.seed}; the same again: {again}\n")
    for one in rounds:
        for number, fault in enumerate(one.faults):
            sys.stdout.write(f"  {'+' if number else ' '} {fault}\n")
    sys.stdout.flush()


def report(outcome: Outcome, home: Path) -> str:
    """Give the end of a run for people."""
    lines = ["", "Recoveries (seconds after the end of a fault):"]
    for one in outcome.recoveries:
        length = "   never" if one.seconds is None else f"{one.seconds:6.1f} s"
        lines.append(f"  {length}  {' + '.join(' '.join(f.split()) for f in one.faults)}")
    if outcome.skipped_rounds:
        lines.append(f"  {outcome.skipped_rounds} rounds had no time left")
    lines.append("Counts:")
    lines += [f"  {count:8}  {name}" for name, count in outcome.counts.items()]
    if outcome.violations:
        lines.append(f"{len(outcome.violations)} VIOLATIONS; data and logs are in {home}:")
        by_area: dict[str, list[str]] = {}
        for violation in outcome.violations:
            by_area.setdefault(violation.split(":")[0], []).append(violation)
        for area, found in by_area.items():
            lines += [f"  {violation}" for violation in found[:MOST_SHOWN]]
            if len(found) > MOST_SHOWN:
                lines.append(f"  ... {len(found) - MOST_SHOWN} more of {area}, see the report")
    else:
        lines.append("Nothing lost, nothing twice: no violations.")
    return "\n".join(lines) + "\n"


async def _run(options: argparse.Namespace) -> Outcome:
    say = Said()
    async with running_system(
        options.home, free_port(), brokers=options.brokers, say=say
    ) as system:
        run = Run(system, options.rounds, say)
        return await run.go(seconds=options.seconds, seed=options.seed, rate=options.rate)


def main(arguments: Sequence[str]) -> int:
    """Give the exit code: 0 when nothing was violated, 1 when something was, 130 when stopped."""
    options = _options(arguments)
    _print_plan(options, options.rounds)
    shutil.rmtree(options.home, ignore_errors=True)
    options.home.mkdir(parents=True)
    # A signal ends the run as Ctrl-C does: what was started is stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = asyncio.run(_run(options))
    except KeyboardInterrupt:
        return 130
    file = options.home / "report.json"
    told = {"seed": options.seed, "seconds": options.seconds, **asdict(outcome)}
    file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(report(outcome, options.home))
    if not outcome.violations:
        for part in ("stack", "servers"):
            shutil.rmtree(options.home / part / "data", ignore_errors=True)
    sys.stdout.write(f"The report: {file}\n")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
