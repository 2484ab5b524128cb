"""Local stacks of the measurements: next to the usual one, with free ports and a cheap upstream."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.ports import Ports
from infra.local.probes import http_status
from infra.local.settings import CHECKOUT, LocalSettings
from infra.local.state import running
from tests.load.upstream import HOST

PROVIDERS = """\
[[providers]]
name = "upstream"
dialect = "responses"
models = ["*"]
base_url = "http://{host}:{port}/v1"
max_connections = {connections}
"""


class UpstreamPart:
    """The upstream as a process."""

    name = "upstream"

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port: int | None = port

    def environment(self) -> dict[str, str]:
        return {}

    async def prepare(self, _report: Report) -> Command:
        program = (sys.executable, "-m", "tests.load.upstream")
        return Command(argv=(*program, "--port", str(self.port)), cwd=CHECKOUT)

    async def is_ready(self) -> bool:
        return await http_status(self.port, "/healthz") == HTTPStatus.OK


@contextmanager
def own_stack(
    name: str, *, intakes: int = 1, workers: int = 1, connections: int = 1_000
) -> Iterator[tuple[LocalSettings, int]]:
    """Give the settings of a stack with embedded servers, and the port of its only upstream.

    `connections` is how many a worker may open to the upstream. The data is removed afterwards,
    the logs stay until the next run. Raises StackError when one of that name runs.
    """
    usual = LocalSettings.load()
    home = usual.home / name
    if running(home):
        raise StackError(f"One is already running in {home}", fix="Wait for its end")
    shutil.rmtree(home, ignore_errors=True)
    # Claimed where the stack claims its own, so that no part is given one of these.
    ports = Ports(home)
    upstream_port = ports.claim("upstream")
    providers = home / "providers.toml"
    words = PROVIDERS.format(host=HOST, port=upstream_port, connections=connections)
    providers.write_text(words, encoding="utf-8")
    for given in ("UPSTREAM_BASE_URL", "UPSTREAM_DIALECT"):
        os.environ.pop(given, None)
    os.environ["ANTIPHON_PROVIDERS"] = str(providers)
    settings = LocalSettings.load(
        antiphon_home=home,
        antiphon_downloads=usual.downloads,
        antiphon_host=HOST,
        antiphon_port=ports.claim("intake"),
        antiphon_providers=providers,
        kafka_bootstrap=None,
        kafka_brokers=1,
        database_url=None,
        s3_endpoint=None,
        upstream_base_url=None,
        intake_replicas=intakes,
        worker_replicas=workers,
    )
    try:
        yield settings, upstream_port
    finally:
        shutil.rmtree(home / "data", ignore_errors=True)
