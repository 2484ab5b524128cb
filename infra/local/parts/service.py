"""One process of one of Antiphon's services."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.local.downloads import Report
from infra.local.part import Command
from infra.local.ports import HOST
from infra.local.probes import http_status

HTTP_OK = 200
STOP_TIMEOUT_S = 25.0
AFTER_DRAIN_S = 15.0
"""What is stopped after the drain time needs so long at the most."""

Environment = Callable[[], Mapping[str, str]]


class ServicePart:
    """`python -m services.<service>.main`, told all by environment.

    `environment` is called at each start, when the addresses of the servers are known. What it has
    open gets `drain_s` to end at a stop.
    """

    def __init__(
        self,
        name: str,
        *,
        service: str,
        home: Path,
        port: int,
        environment: Environment,
        drain_s: float = 0.0,
    ) -> None:
        self.name = name
        self.service = service
        self.home = home
        self.port: int | None = port
        self._environment = environment
        self._drain_s = drain_s

    @property
    def url(self) -> str:
        """Base URL on this machine."""
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Nothing: services find each other through the plan of the stack."""
        return {}

    async def prepare(self, report: Report) -> Command:  # noqa: ARG002 - nothing takes long here
        """Give the command with the environment as it is now."""
        prefix = self.service.upper()
        own = {f"{prefix}_HOST": HOST, f"{prefix}_PORT": str(self.port)}
        return Command(
            argv=(sys.executable, "-m", f"services.{self.service}.main"),
            env={**own, **self._environment()},
            stop_timeout_s=max(STOP_TIMEOUT_S, self._drain_s + AFTER_DRAIN_S),
        )

    async def is_ready(self) -> bool:
        """Whether it reports itself ready."""
        return await http_status(self.port, "/readyz") == HTTP_OK
