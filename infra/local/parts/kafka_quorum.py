"""What the brokers of one local Kafka cluster agree on: its members, their ports, its id."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from infra.local.errors import StackError
from infra.local.ports import HOST, Ports

CONTROLLER = "controller"
BROKERS = "brokers"
MOST_REPLICAS = 3
FIRST = 1


class KafkaQuorum:
    """The members of one cluster, numbered from 1; every one is a broker and a controller.

    All ports are claimed through one object, before any member listens: a port of a member that
    runs is not free, and would be chosen anew.
    """

    def __init__(
        self, home: Path, size: int = 1, new_id: Callable[[], uuid.UUID] = uuid.uuid4
    ) -> None:
        self.home = home
        self.size = size
        self._ports = Ports(home)
        self._new_id = new_id
        self._made_id: str | None = None

    @property
    def numbers(self) -> range:
        """The members, from 1 on."""
        return range(FIRST, FIRST + self.size)

    @property
    def replicas(self) -> int:
        """How many copies a partition gets, of topics and of Kafka's own."""
        return min(self.size, MOST_REPLICAS)

    @property
    def in_sync(self) -> int:
        """How many copies must have a message before it is acknowledged."""
        return max(1, self.replicas - 1)

    def name(self, number: int) -> str:
        """The name of a member, of its folders and of its log."""
        return "kafka" if number == FIRST else f"kafka-{number}"

    def data(self, number: int) -> Path:
        """The folder with a member's messages."""
        return self.home / "data" / self.name(number)

    def port(self, number: int, listener: str = "") -> int:
        """The port of a member for clients, else for the `controller` or the other `brokers`."""
        for member in self.numbers:
            name = self.name(member)
            self._ports.claim(name)
            self._ports.claim(f"{name}-{CONTROLLER}")
            if self.size > 1:
                self._ports.claim(f"{name}-{BROKERS}")
        name = self.name(number)
        return self._ports.claim(f"{name}-{listener}" if listener else name)

    def voters(self) -> str:
        """All members as `controller.quorum.voters` names them."""
        return ",".join(f"{n}@{HOST}:{self.port(n, CONTROLLER)}" for n in self.numbers)

    def cluster_id(self) -> str:
        """The id that a member was formatted with, else one for all, made once."""
        for number in self.numbers:
            file = self.data(number) / "meta.properties"
            if file.is_file():
                lines = file.read_text(encoding="utf-8").splitlines()
                return dict(line.split("=", 1) for line in lines if "=" in line)["cluster.id"]
        if self._made_id is None:
            self._made_id = urlsafe_b64encode(self._new_id().bytes).decode().rstrip("=")
        return self._made_id

    def check(self, properties: Path) -> None:
        """Raise StackError when the home's data belongs to a cluster of another size.

        `properties` is a member's configuration of the last time. Static voters can't be changed
        under messages that are there.
        """
        if not properties.is_file():
            return
        prefix = "controller.quorum.voters="
        lines = properties.read_text(encoding="utf-8").splitlines()
        voters = next((line for line in lines if line.startswith(prefix)), "")
        before = voters.count("@")
        if before != self.size:
            raise StackError(
                f"{self.home} has the data of {before} Kafka brokers, not of {self.size}",
                fix=f"Set KAFKA_BROKERS={before}, or choose an empty ANTIPHON_HOME",
            )
