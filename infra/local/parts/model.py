"""The model on this machine, SmolLM2 behind an OpenAI-compatible API."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.local.downloads import Report
from infra.local.part import Command
from infra.local.ports import HOST, Ports
from infra.local.probes import http_status

HTTP_OK = 200


class ModelServer:
    """The toy model that answers when no upstream is configured; keeps no data."""

    name = "model"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port: int | None = None
        self._ports = Ports(home)

    @property
    def base_url(self) -> str:
        """Base URL of its `/v1`; valid after `prepare`."""
        return f"http://{HOST}:{self.port}/v1"

    def environment(self) -> dict[str, str]:
        """UPSTREAM_BASE_URL and UPSTREAM_DIALECT."""
        return {"UPSTREAM_BASE_URL": self.base_url, "UPSTREAM_DIALECT": "chat"}

    async def prepare(self, report: Report) -> Command:  # noqa: ARG002 - nothing takes long here
        """Choose its port."""
        self.port = self._ports.claim(self.name)
        module = "infra.local.model_server"
        return Command(argv=(sys.executable, "-m", module, "--port", str(self.port)))

    async def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return await http_status(self.port, "/health") == HTTP_OK
