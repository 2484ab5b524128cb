"""The chaos suite itself, small: a worker and a broker die under load, and the books are right."""

from __future__ import annotations

from pathlib import Path

from infra.local.ports import free_port
from tests.chaos.environment import running_system
from tests.chaos.run import Run
from tests.chaos.schedule import Fault, Round

SECONDS = 6.0
RATE = 6.0
ROUNDS = (
    Round(
        (
            Fault(at_s=1.0, kind="kill", target="worker"),
            Fault(at_s=1.2, kind="cut", target="postgres", seconds=0.5),
            Fault(
                at_s=2.0,
                kind="redeliver",
                target="responses.commands",
                seconds=1.0,
                numbers={"messages": 20.0, "seed": 1.0},
            ),
        )
    ),
)


async def test_what_was_accepted_is_answered_and_charged_once_whatever_dies(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    async with running_system(tmp_path, free_port(), brokers=1, say=said.append) as system:
        outcome = await Run(system, ROUNDS, said.append).go(seconds=SECONDS, seed=1, rate=RATE)
    assert outcome.violations == [], said
    assert len(outcome.recoveries) == 1
    assert outcome.counts["accepted"] > 0
