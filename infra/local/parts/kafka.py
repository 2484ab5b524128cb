"""Apache Kafka as a KRaft node, alone or one of several, on the Java runtime of a wheel."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from pathlib import Path

from infra.local.downloads import Report, class_path
from infra.local.part import Command
from infra.local.parts.java import java
from infra.local.parts.kafka_quorum import BROKERS, CONTROLLER, FIRST, KafkaQuorum
from infra.local.ports import HOST
from infra.local.process import log_file, run_to_end

HEAP_MB = 512
HEAP_OF_SEVERAL_MB = 384
METADATA_REQUEST = 3
PROBE_TIMEOUT_S = 1.0

LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = out
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
logger.storage.name = org.apache.kafka.storage.internals.log
logger.storage.level = warn
"""


class KafkaServer:
    """A real broker with data in `<home>/data/<name>`; topics must be created before use.

    Alone it is `kafka`; of several, one `quorum` names them `kafka`, `kafka-2` and so on.
    `advertised_port` is where clients are sent instead, as to a proxy before this broker.
    """

    def __init__(
        self,
        home: Path,
        downloads: Path,
        quorum: KafkaQuorum | None = None,
        *,
        number: int = FIRST,
        advertised_port: int | None = None,
    ) -> None:
        self.home = home
        self.port: int | None = None
        self._quorum = quorum or KafkaQuorum(home)
        self._number = number
        self._advertised_port = advertised_port
        self._downloads = downloads
        self.name = self._quorum.name(number)
        self._config = home / "config" / self.name

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`; valid after `prepare`."""
        return f"{HOST}:{self._advertised_port or self.port}"

    def environment(self) -> dict[str, str]:
        """KAFKA_BOOTSTRAP."""
        return {"KAFKA_BOOTSTRAP": self.bootstrap}

    async def prepare(self, report: Report) -> Command:
        """Fetch Kafka, write its configuration, and format its storage on the first run."""
        path = await class_path("kafka", self._downloads, report)
        self._quorum.check(self._config / "server.properties")
        self.port = self._quorum.port(self._number)
        properties = self.write_configuration()
        if not (self._quorum.data(self._number) / "meta.properties").is_file():
            cluster = self._quorum.cluster_id()
            tool = java(path, "kafka.tools.StorageTool")
            # With an equals sign: one id in 64 begins with a dash, which would read as an option.
            command = Command(
                argv=(*tool, "format", f"--cluster-id={cluster}", "-c", str(properties))
            )
            await run_to_end(command, log_file(self.home, self.name), "Formatting Kafka's storage")
        heap = f"-Xmx{HEAP_MB if self._quorum.size == 1 else HEAP_OF_SEVERAL_MB}m"
        logging = f"-Dlog4j2.configurationFile={self._config / 'log4j2.properties'}"
        return Command(argv=(*java(path, "kafka.Kafka", heap, logging), str(properties)))

    def write_configuration(self) -> Path:
        """Write its properties and those of its log; return the former."""
        replicas, in_sync = self._quorum.replicas, self._quorum.in_sync
        settings = {
            "process.roles": "broker,controller",
            "node.id": self._number,
            "controller.quorum.voters": self._quorum.voters(),
            **self._listeners(),
            "log.dirs": self._quorum.data(self._number),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # A worker that is killed gives its partitions up after this time at the earliest.
            "group.min.session.timeout.ms": 6000,
            "offsets.topic.num.partitions": 8,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            **({"min.insync.replicas": in_sync} if in_sync > 1 else {}),
        }
        self._config.mkdir(parents=True, exist_ok=True)
        (self._config / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        file = self._config / "server.properties"
        lines = (f"{key}={value}\n" for key, value in settings.items())
        file.write_text("".join(lines), encoding="utf-8")
        return file

    def _listeners(self) -> dict[str, str]:
        client = f"CLIENT://{HOST}:{self._quorum.port(self._number)}"
        controller = f"CONTROLLER://{HOST}:{self._quorum.port(self._number, CONTROLLER)}"
        advertised = f"CLIENT://{HOST}:{self._advertised_port}" if self._advertised_port else client
        if self._quorum.size == 1:
            own, between = "", "CLIENT"
        else:
            # Among themselves brokers don't take the way of clients, which may lead over a proxy.
            own = f",BROKERS://{HOST}:{self._quorum.port(self._number, BROKERS)}"
            between = "BROKERS"
        protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        return {
            "listeners": f"{client}{own},{controller}",
            "advertised.listeners": f"{advertised}{own}",
            "inter.broker.listener.name": between,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": protocols + (",BROKERS:PLAINTEXT" if own else ""),
        }

    async def is_ready(self) -> bool:
        """Whether it is among the live brokers of its metadata; a mere open port says less."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return self._number in await self._live_brokers()
        return False

    async def _live_brokers(self) -> list[int]:
        # The protocol's smallest useful exchange: Metadata v0 for all topics. A client library
        # would cost every start half a second of imports.
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            body = struct.pack("!hhih", METADATA_REQUEST, 0, 1, -1) + struct.pack("!i", 0)
            writer.write(struct.pack("!i", len(body)) + body)
            _size, _correlation, brokers = struct.unpack("!iii", await reader.readexactly(12))
            numbers = []
            for _ in range(brokers):
                number, length = struct.unpack("!ih", await reader.readexactly(6))
                await reader.readexactly(length + 4)
                numbers.append(number)
            return numbers
        finally:
            writer.close()
