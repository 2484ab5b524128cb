"""Chaos on the compose file, with real networks that part: `make chaos-compose`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra.local.ports import free_port
from tests.chaos.ledger import check
from tests.chaos.load import Load
from tests.chaos.probes import Probes
from tests.chaos.run import DRAIN_S, GRACE_S, LONGEST_RECOVERY_S, RECOVERY_S
from tests.chaos.schedule import LEASE_S
from tests.compose import (
    UP_TIMEOUT_S,
    Compose,
    ComposeError,
    check_engine,
    docker,
    step,
    taken_down,
)

FILES = ("infra/compose/three-brokers.yml", "infra/compose/chaos.yml")
BROKERS = ("kafka", "kafka-2", "kafka-3")
RATE = 6.0
SEED = 1
CALM_S = 5.0
OUTAGE_S = LEASE_S + 7.0
"""Longer than a lease, and than Kafka takes to notice that a broker is gone."""


class ThreeBrokers(Compose):
    """The compose file with three brokers and two workers, in reach from the host."""

    def __init__(self, env_file: Path) -> None:
        super().__init__(env_file)
        self._files += [word for file in FILES for word in ("--file", file)]
        names = ("KAFKA_1_PORT", "KAFKA_2_PORT", "KAFKA_3_PORT", "POSTGRES_PORT")
        self.ports = {name: str(free_port()) for name in names}
        lines = [f"{name}={port}\n" for name, port in self.ports.items()]
        told = env_file.read_text(encoding="utf-8")
        env_file.write_text(told + "".join(lines), encoding="utf-8")
        self._values = dict(line.split("=", 1) for line in told.splitlines())

    @property
    def kafka(self) -> str:
        """The brokers, from the host."""
        return ",".join(f"127.0.0.1:{self.ports[f'KAFKA_{n}_PORT']}" for n in (1, 2, 3))

    @property
    def database_url(self) -> str:
        """The database, from the host."""
        password = self._values["POSTGRES_PASSWORD"]
        port = self.ports["POSTGRES_PORT"]
        return f"postgresql://antiphon:{password}@127.0.0.1:{port}/antiphon"

    @property
    def network(self) -> str:
        """The network on which servers and services talk."""
        return f"{self.project}_internal"


def parted(compose: ThreeBrokers, service: str) -> Callable[[], None]:
    """Take a service's first container off the network; return how to bring it back."""
    container = compose.containers(service)[0]
    docker("network", "disconnect", compose.network, container)

    def heal() -> None:
        docker("network", "connect", "--alias", service, compose.network, container)

    return heal


def killed(compose: ThreeBrokers, service: str) -> Callable[[], None]:
    """Kill a service's first container; return how to start it."""
    container = compose.containers(service)[0]
    docker("kill", "--signal", "KILL", container)

    def start() -> None:
        docker("start", container)

    return start


FAULTS: tuple[tuple[str, Callable[[ThreeBrokers, str], Callable[[], None]], str, float], ...] = (
    ("a worker is parted from Kafka and PostgreSQL", parted, "worker", OUTAGE_S),
    ("a broker is parted from the others and from all services", parted, "kafka-2", OUTAGE_S),
    ("a broker is killed", killed, "kafka-3", OUTAGE_S),
    ("PostgreSQL is parted from all services", parted, "postgres", 4.0),
    ("a worker is killed", killed, "worker", 0.0),
    ("intake is parted from Kafka and PostgreSQL", parted, "intake", 4.0),
)


async def ready(compose: ThreeBrokers) -> None:
    """Return once every kind of request is answered; raises ComposeError."""
    probes = Probes([f"http://127.0.0.1:{compose.port}"], compose.admin_key)
    try:
        took, problem = await probes.recovered(since=time.monotonic(), within_s=UP_TIMEOUT_S)
    finally:
        await probes.close()
    if took is None:
        raise ComposeError(f"not ready within {UP_TIMEOUT_S} s: {problem}")


async def exercise(compose: ThreeBrokers) -> list[str]:
    """Let everything happen under load; return what was violated."""
    url = f"http://127.0.0.1:{compose.port}"
    upstream = f"http://{compose('port', 'upstream', '8000')}"
    key = compose.admin_key
    load = Load(intakes=[url], admin_key=key, upstream_control_url=upstream, seed=SEED, rate=RATE)
    probes = Probes([url], key)
    violations = []
    await load.start()
    try:
        for what, begin, service, seconds in FAULTS:
            with step(what):
                heal = await asyncio.to_thread(begin, compose, service)
                try:
                    await asyncio.sleep(seconds)
                finally:
                    await asyncio.to_thread(heal)
            over = time.monotonic()
            with step("  recovery"):
                took, problem = await probes.recovered(since=over, within_s=LONGEST_RECOVERY_S)
            if took is None or took > RECOVERY_S:
                violations.append(f"{what}: recovered after {took} s ({problem})")
            await asyncio.sleep(CALM_S)
    finally:
        await load.stop(GRACE_S)
        await probes.close()
    with step("the books"):
        report = await check(
            load=load,
            kafka_bootstrap=compose.kafka,
            database_url=compose.database_url,
            intakes=[url],
            admin_key=key,
            upstream_control_url=upstream,
            blobs={},
            drain_seconds=DRAIN_S,
        )
    for name, count in report.counts.items():
        sys.stdout.write(f"  {count:8}  {name}\n")
    return violations + report.violations


def main() -> int:
    """Return 0 when nothing was violated; whatever happens, nothing is left running."""
    try:
        check_engine()
        with tempfile.TemporaryDirectory() as folder:
            compose = ThreeBrokers(Path(folder) / "env")
            with step("build"):
                compose("build")
            with taken_down(compose):
                with step("up"):
                    # Ready is what intake says: health checks give up on a machine that is busy.
                    compose("up", "--detach", "--no-build", "--scale", "worker=2")
                    asyncio.run(ready(compose))
                violations = asyncio.run(exercise(compose))
                if violations:
                    logs = compose("logs", "--tail", "60", "--no-color")
                    sys.stderr.write(f"\n{logs}\n")
    except ComposeError as error:
        sys.stderr.write(f"\nchaos-compose: {error}\n")
        return 1
    for violation in violations:
        sys.stderr.write(f"{violation}\n")
    sys.stdout.write(f"chaos-compose: {len(violations)} violations\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
