"""What stands before the upstream: Antiphon, nothing, or a peer that is installed and started."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.ports import Ports
from infra.local.probes import http_status
from infra.local.process import Child, log_file, run_to_end, until_ready
from infra.local.settings import CHECKOUT
from tests.load.figures import LITELLM, SCENARIOS, SMG
from tests.load.templates import model_name
from tests.load.upstream import HOST

SETUP = Path(__file__).with_name("setup_peer.sh")
INSTALL_S, START_S = 300.0, 90.0
LITELLM_KEY = "sk-bench"


@dataclass(frozen=True, slots=True)
class Gateway:
    """What stands before the upstream; its `core_parts` have a core to themselves."""

    name: str
    base_url: str
    api_key: str
    pids: Mapping[str, int] = field(default_factory=dict)
    core_parts: tuple[str, ...] = ()


def peer_version(name: str) -> str:
    """Give the version of a peer that its lock names."""
    lines = (CHECKOUT / "requirements" / "peers" / f"{name}.txt").read_text().splitlines()
    pins = (line.split()[0].partition("==") for line in lines if "==" in line)
    return next(version for package, _, version in pins if package == name)


class Peer(ABC):
    """Another gateway, installed from its lock into `.cache/peers`, as one process."""

    api_key = "unused"
    health = "/health"

    def __init__(self, name: str, home: Path, upstream_port: int) -> None:
        self.name = name
        self.home = home
        self._ports = Ports(home)
        self.port: int | None = self._ports.claim(name)
        self.upstream_url = f"http://{HOST}:{upstream_port}"
        self.program = str(CHECKOUT / ".cache" / "peers" / name / "bin" / name)

    def environment(self) -> dict[str, str]:
        return {}

    async def prepare(self, report: Report) -> Command:
        """Install it when it is not there; raises StackError when that can't be done."""
        log = log_file(self.home, f"{self.name}-setup")
        report(f"{self.name}: installing it, if it is not there")
        command = Command(argv=("sh", str(SETUP), self.name), cwd=CHECKOUT)
        try:
            async with asyncio.timeout(INSTALL_S):
                await run_to_end(command, log, f"The installation of {self.name}")
        except TimeoutError as error:
            problem = f"The installation of {self.name} took longer than {INSTALL_S:.0f} s"
            raise StackError(problem, fix=f"Read {log}") from error
        return self.command()

    @abstractmethod
    def command(self) -> Command:
        """Give how it is started."""

    async def is_ready(self) -> bool:
        return await http_status(self.port, self.health) == HTTPStatus.OK


class Smg(Peer):
    """Shepherd Model Gateway, in Rust, as a router to an OpenAI-compatible upstream."""

    def command(self) -> Command:
        metrics = str(self._ports.claim(f"{self.name}-metrics"))
        listen = ("--host", HOST, "--port", str(self.port))
        scrape = ("--prometheus-host", HOST, "--prometheus-port", metrics)
        upstream = ("--backend", "openai", "--worker-urls", self.upstream_url)
        # A line per request is what one would turn off first.
        argv = (self.program, "launch", *upstream, *listen, *scrape, "--log-level", "warn")
        return Command(argv=argv, cwd=self.home)


class LiteLlm(Peer):
    """LiteLLM's proxy with one worker; no database, so that it stores nothing."""

    api_key = LITELLM_KEY
    health = "/health/liveliness"

    def command(self) -> Command:
        config = self.home / f"{self.name}.yaml"
        config.write_text(self._config(), encoding="utf-8")
        argv = (self.program, "--config", str(config), "--host", HOST, "--port", str(self.port))
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        only = ("--num_workers", "1", "--telemetry", "False")
        return Command(argv=(*argv, *only), env=env, cwd=self.home, stop_timeout_s=3.0)

    def _config(self) -> str:
        pairs = {(scenario.deltas, scenario.interval_ms) for scenario in SCENARIOS}
        models = [model_name(deltas=deltas, interval_ms=pause) for deltas, pause in sorted(pairs)]
        # Without a model's information it asks for the whole answer and makes up a stream.
        entries = [
            f"  - model_name: {name}\n"
            f"    litellm_params: {{model: openai/{name}, api_base: {self.upstream_url}/v1, "
            "api_key: unused}\n"
            "    model_info: {supports_native_streaming: true}\n"
            for name in models
        ]
        return f"model_list:\n{''.join(entries)}general_settings: {{master_key: {LITELLM_KEY}}}\n"


class Peers:
    """The peers that were asked for."""

    known: ClassVar[dict[str, type[Peer]]] = {SMG: Smg, LITELLM: LiteLlm}

    @staticmethod
    @asynccontextmanager
    async def running(
        peer: Peer, report: Report, cores: frozenset[int] | None
    ) -> AsyncIterator[Gateway]:
        """Run one on these cores; raises StackError when it can't be installed or started."""
        command = await peer.prepare(report)
        # It counts the cores that it is started on.
        with _bound(cores):
            child = await Child.start(command, log_file(peer.home, peer.name))
        try:
            await until_ready(peer, child, START_S)
            url = f"http://{HOST}:{peer.port}/v1"
            yield Gateway(peer.name, url, peer.api_key, {peer.name: child.pid}, (peer.name,))
        finally:
            await child.stop()


@contextmanager
def _bound(cores: frozenset[int] | None) -> Iterator[None]:
    """What is started within has these cores; None changes nothing."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
