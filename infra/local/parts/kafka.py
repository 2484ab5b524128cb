"""Apache Kafka as one KRaft node, on the Java runtime of a wheel."""

from __future__ import annotations

import asyncio
import struct
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from infra.local.downloads import Report, class_path
from infra.local.part import Command
from infra.local.parts.java import java
from infra.local.ports import HOST, Ports
from infra.local.process import log_file, run_to_end

NODE_ID = 1
HEAP = "-Xmx512m"
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
    """A real broker with data in `<home>/data/kafka`; topics must be created before use."""

    name = "kafka"

    def __init__(
        self, home: Path, downloads: Path, new_id: Callable[[], uuid.UUID] = uuid.uuid4
    ) -> None:
        self.home = home
        self.port: int | None = None
        self._new_id = new_id
        self._downloads = downloads
        self._ports = Ports(home)
        self._data = home / "data" / "kafka"
        self._config = home / "config" / "kafka"

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`; valid after `prepare`."""
        return f"{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """KAFKA_BOOTSTRAP."""
        return {"KAFKA_BOOTSTRAP": self.bootstrap}

    async def prepare(self, report: Report) -> Command:
        """Fetch Kafka, write its configuration, and format its storage on the first run."""
        path = await class_path("kafka", self._downloads, report)
        self.port = self._ports.claim("kafka")
        properties = self._write_configuration(self._ports.claim("kafka-controller"))
        if not (self._data / "meta.properties").is_file():
            cluster = urlsafe_b64encode(self._new_id().bytes).decode().rstrip("=")
            tool = java(path, "kafka.tools.StorageTool")
            # With an equals sign: one id in 64 begins with a dash, which would read as an option.
            command = Command(
                argv=(*tool, "format", f"--cluster-id={cluster}", "-c", str(properties))
            )
            await run_to_end(command, log_file(self.home, self.name), "Formatting Kafka's storage")
        logging = f"-Dlog4j2.configurationFile={self._config / 'log4j2.properties'}"
        return Command(argv=(*java(path, "kafka.Kafka", HEAP, logging), str(properties)))

    def _write_configuration(self, controller_port: int) -> Path:
        settings = {
            "process.roles": "broker,controller",
            "node.id": NODE_ID,
            "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
            "listeners": f"CLIENT://{self.bootstrap},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"CLIENT://{self.bootstrap}",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._data,
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # A worker that is killed gives its partitions up after this time at the earliest.
            "group.min.session.timeout.ms": 6000,
            "offsets.topic.num.partitions": 8,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
        }
        self._config.mkdir(parents=True, exist_ok=True)
        (self._config / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        file = self._config / "server.properties"
        lines = (f"{key}={value}\n" for key, value in settings.items())
        file.write_text("".join(lines), encoding="utf-8")
        return file

    async def is_ready(self) -> bool:
        """Whether a metadata request names a live broker, which a mere open port does not."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self._live_brokers() > 0
        return False

    async def _live_brokers(self) -> int:
        # The protocol's smallest useful exchange: Metadata v0 for all topics. A client library
        # would cost every start half a second of imports.
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            body = struct.pack("!hhih", METADATA_REQUEST, 0, 1, -1) + struct.pack("!i", 0)
            writer.write(struct.pack("!i", len(body)) + body)
            _size, _correlation, brokers = struct.unpack("!iii", await reader.readexactly(12))
            return int(brokers)
        finally:
            writer.close()
