"""Everything a run needs, started for it: servers, proxy, scripted upstream, services."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil

from infra.local.backoff import Backoff
from infra.local.part import Part
from infra.local.parts.kafka import KafkaServer
from infra.local.parts.kafka_quorum import KafkaQuorum
from infra.local.parts.postgres import PostgresServer
from infra.local.parts.s3 import S3Server
from infra.local.ports import HOST, Ports
from infra.local.settings import LocalSettings
from infra.local.state import PartStatus, State
from infra.local.supervisor import Step, Supervisor
from tests.chaos.load.counting import servers_file
from tests.chaos.proxy import ProxyProcess, Route
from tests.chaos.schedule import LEASE_S, SERVICES
from tests.e2e.stack import Stack, running_stack
from tests.upstream import UpstreamProcess

INTAKES = ("intake", "intake-2")
READY_TIMEOUT_S = 90.0
POLL_S = 0.05
PROVIDERS = """
[[providers]]
name = "openai"
dialect = "responses"
base_url = "{base_url}"
models = ["gpt-*"]
hosted_tools = ["web_search", "file_search", "code_interpreter", "image_generation"]
breaker_open_seconds = 2
"""

Say = Callable[[str], None]


class NotBackError(Exception):
    """A part was not started again in time."""


@dataclass
class System:
    """A running system. The proxy stands before `kafka`, not before `database_url` and `s3`.

    Parts have the names that `antiphon status` shows.
    """

    home: Path
    stack: Stack
    servers: Supervisor
    proxy: ProxyProcess
    upstream: UpstreamProcess
    brokers: tuple[str, ...]
    kafka: str
    database_url: str
    s3: dict[str, str]
    routes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def intakes(self) -> list[str]:
        """Base URLs of the intakes, without `/v1`."""
        return [f"http://{HOST}:{self.stack.part(name).port}" for name in INTAKES]

    @property
    def executions(self) -> Path:
        """The file in which the counting MCP server notes its runs."""
        return self.home / "executions.jsonl"

    def part(self, name: str) -> PartStatus:
        """The state of a service or server as its supervisor sees it."""
        return self.servers.status.get(name) or self.stack.part(name)

    def pid(self, name: str) -> int | None:
        """The process of a part, None while it has none that lives."""
        pid = self.part(name).pid
        return pid if pid is not None and psutil.pid_exists(pid) else None

    def kill(self, name: str) -> int | None:
        """Kill a part with all processes below it at once; return the id that it had."""
        pid = self.pid(name)
        if pid is not None:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                for one in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
        return pid

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to a part's own process; return its id."""
        pid = self.pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    async def ready(self, name: str, *, after: int | None = None) -> None:
        """Return once a part is ready in a process other than `after`; raises NotBackError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            part = self.part(name)
            if part.state is State.READY and part.pid != after and self.pid(name) is not None:
                return
            if time.monotonic() > deadline:
                raise NotBackError(f"{name} is {part.state} {READY_TIMEOUT_S:g} s after its end")
            await asyncio.sleep(POLL_S)


class _Servers:
    """Kafka, PostgreSQL and S3 with the addresses that clients are told: those of the proxy."""

    def __init__(self, home: Path, downloads: Path, brokers: int, control_port: int) -> None:
        ports = Ports(home)
        self.quorum = KafkaQuorum(home, brokers)
        names = [self.quorum.name(number) for number in self.quorum.numbers]
        self.before = {name: ports.claim(f"proxy-{name}") for name in (*names, *_OTHERS)}
        behind = {name: self.quorum.port(number) for number, name in enumerate(names, 1)}
        behind |= {name: ports.claim(name) for name in ("postgres", "s3")}
        behind["upstream"] = control_port
        self.routes = {name: Route(self.before[name], behind[name]) for name in self.before}
        self.kafka = [
            KafkaServer(
                home, downloads, self.quorum, number=number, advertised_port=self.before[name]
            )
            for number, name in enumerate(names, 1)
        ]
        self.postgres = PostgresServer(home)
        self.s3 = S3Server(home, downloads)

    def steps(self) -> list[Step]:
        parts: tuple[Part, ...] = (*self.kafka, self.postgres, self.s3)
        return [Step(name=part.name, part=part) for part in parts]

    def addresses(self) -> dict[str, str]:
        """What services are told."""
        url = urlsplit(self.postgres.url)
        place = f"{url.username}:{url.password}@{HOST}:{self.before['postgres']}"
        return {
            "KAFKA_BOOTSTRAP": ",".join(part.bootstrap for part in self.kafka),
            "DATABASE_URL": urlunsplit((url.scheme, place, url.path, "", "")),
            **self.s3.environment(),
            "S3_ENDPOINT": f"http://{HOST}:{self.before['s3']}",
        }


_OTHERS = ("postgres", "s3", "upstream")


@asynccontextmanager
async def running_system(home: Path, port: int, *, brokers: int, say: Say) -> AsyncIterator[System]:
    """Start everything below `home`, a folder that is there; all of it is gone after the block.

    Blocks the event loop while the services start and stop: run it in the main thread.
    """
    downloads = LocalSettings.load().downloads
    with UpstreamProcess() as upstream:
        control_port = urlsplit(upstream.url).port
        assert control_port is not None
        servers = _Servers(home / "servers", downloads, brokers, control_port)
        # What is killed comes back soon, however often that happens.
        patience = Backoff(longest_s=1.0)
        supervisor = Supervisor(
            servers.steps(), report=say, changed=lambda _part: None, backoff=patience
        )
        async with ProxyProcess(servers.routes) as proxy:
            try:
                await supervisor.start()
                say("servers and proxy are ready")
                addresses = servers.addresses()
                settings = {
                    "ANTIPHON_DOWNLOADS": str(downloads),
                    **addresses,
                    **_settings(home, f"http://{HOST}:{servers.before['upstream']}/v1"),
                }
                with running_stack(home / "stack", port, settings) as stack:
                    say(f"services are ready at {stack.url}")
                    names = tuple(part.name for part in servers.kafka)
                    yield System(
                        home=home,
                        stack=stack,
                        servers=supervisor,
                        proxy=proxy,
                        upstream=upstream,
                        brokers=names,
                        kafka=addresses["KAFKA_BOOTSTRAP"],
                        database_url=servers.postgres.url,
                        s3=servers.s3.environment(),
                        routes={"kafka": names, **{name: (name,) for name in _OTHERS}},
                    )
            finally:
                await supervisor.stop()


def _settings(home: Path, upstream: str) -> dict[str, str]:
    providers = home / "providers.toml"
    providers.write_text(PROVIDERS.format(base_url=upstream), encoding="utf-8")
    tools = home / "mcp_servers.toml"
    tools.write_text(servers_file(home / "executions.jsonl"), encoding="utf-8")
    count = {name: sum(x.split("-")[0] == name for x in SERVICES) for name in ("intake", "worker")}
    return {
        "ANTIPHON_PROVIDERS": str(providers),
        "MCP_BROKER_SERVERS": str(tools),
        "INTAKE_REPLICAS": str(count["intake"]),
        "WORKER_REPLICAS": str(count["worker"]),
        "INTAKE_ACCEPT_TIMEOUT_SECONDS": "2",
        "INTAKE_HEARTBEAT_SECONDS": "1",
        "WORKER_LEASE_SECONDS": str(LEASE_S),
        "WORKER_SWEEP_SECONDS": "1",
        "WEBHOOKS_ALLOW_HTTP": "true",
        "WEBHOOKS_ALLOW_PRIVATE": "true",
        "WEBHOOKS_FIRST_RETRY_SECONDS": "0.2",
        "WEBHOOKS_POLL_SECONDS": "0.5",
    }
