"""`make bench`: its options, a local stack of its own, and what becomes of the figures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from infra.cli.output import Progress, out
from infra.local.errors import StackError
from infra.local.foreground import run_stack
from infra.local.settings import CHECKOUT
from infra.local.stack import Stack
from tests.load.bench import Bench, Choice
from tests.load.figures import PEERS, Figures, bars
from tests.load.report import page_with, render
from tests.load.stacks import own_stack

PAGE = CHECKOUT / "docs" / "performance.md"
KINDS = ("json", "stream", "paced", "users")
MOST_SECONDS = 600.0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    env = os.environ.get
    parser.add_argument("--seconds", type=float, default=env("SECONDS", "8"), help="of each load")
    parser.add_argument("--warmup", type=float, default=env("WARMUP", "3"), help="before it, in s")
    parser.add_argument("--only", default=env("ONLY", ",".join(KINDS)), help=",".join(KINDS))
    parser.add_argument(
        "--peers", default=env("PEERS", ",".join(PEERS)), help=f"some of {','.join(PEERS)}, or none"
    )
    parser.add_argument("--json", type=Path, default=env("JSON"), help="file for all figures")
    parser.add_argument("--nice", type=int, default=env("NICE", "0"), help="-20 needs root")
    parser.add_argument(
        "--write",
        action="store_true",
        default=bool(env("WRITE")),
        help="put the figures into docs/performance.md",
    )
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if not set(options.only) <= set(KINDS):
        parser.error(f"ONLY is some of {','.join(KINDS)}")
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    if not set(options.peers) <= set(PEERS):
        parser.error(f"PEERS is some of {','.join(PEERS)}, or none")
    if not (0 < options.seconds <= MOST_SECONDS and 0 <= options.warmup <= MOST_SECONDS):
        parser.error(f"SECONDS and WARMUP are at most {MOST_SECONDS:.0f}")
    return options


def _publish(figures: Figures, options: argparse.Namespace) -> None:
    text = render(figures)
    out.print(f"\n{text}", markup=False)
    if options.json:
        everything = {**asdict(figures), "bars": [asdict(bar) for bar in bars(figures)]}
        options.json.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    if options.write:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Give the exit code: 0 if every answer was right, whatever the bars say."""
    options = _options(arguments)
    say, found = Progress(), list[Figures]()
    try:
        with own_stack("bench") as (settings, port):
            choice = Choice(
                kinds=options.only,
                seconds=options.seconds,
                warmup_s=options.warmup,
                upstream_port=port,
                peers=options.peers,
                nice=options.nice,
            )

            async def body(stack: Stack) -> int:
                found.append(await Bench(choice, say).measure(stack))
                return 0

            run_stack(settings, say, body)
    except (StackError, PermissionError, TimeoutError) as error:
        out.print(f"bench: {str(error) or 'a load did not end'}", markup=False)
        return 1
    if not found:
        return 130
    _publish(found[0], options)
    return 1 if found[0].problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
