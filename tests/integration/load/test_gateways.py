"""Peers are installed from their locks and started on the gateway's core, or it is said why not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Command
from infra.local.settings import CHECKOUT
from tests.load.figures import LITELLM, SCENARIOS, SMG
from tests.load.gateways import LiteLlm, Peer, Peers, Smg, peer_version
from tests.load.templates import model_name


class OwnUpstream(Peer):
    """Not another gateway, but a server that is here anyhow."""

    health = "/healthz"

    async def prepare(self, _report: Report) -> Command:
        return self.command()

    def command(self) -> Command:
        argv = (sys.executable, "-m", "tests.load.upstream", "--port", str(self.port))
        return Command(argv=argv, cwd=CHECKOUT)


class Unlocked(Peer):
    """Has no list of requirements to be installed from."""

    def command(self) -> Command:
        raise AssertionError("it was started")


class Ending(OwnUpstream):
    """Ends before it is ready."""

    def command(self) -> Command:
        return Command(argv=(sys.executable, "-c", "raise SystemExit('no')"))


async def test_a_peer_runs_on_the_cores_that_it_was_given(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    core = frozenset({min(before)})
    peer = OwnUpstream("own", tmp_path, 1)
    async with Peers.running(peer, print, core) as gateway:
        assert gateway.base_url == f"http://127.0.0.1:{peer.port}/v1"
        assert gateway.core_parts == ("own",)
        assert os.sched_getaffinity(gateway.pids["own"]) == core
        assert os.sched_getaffinity(0) == before
    assert not psutil.pid_exists(gateway.pids["own"])


@pytest.mark.parametrize(
    ("kind", "problem"),
    [(Unlocked, "The installation of unknown failed"), (Ending, "unknown ended with code 1")],
)
async def test_a_peer_that_can_not_be_had_says_why(
    tmp_path: Path, kind: Callable[[str, Path, int], Peer], problem: str
) -> None:
    with pytest.raises(StackError) as caught:
        async with Peers.running(kind("unknown", tmp_path, 1), print, None):
            raise AssertionError("it runs")
    assert caught.value.problem.startswith(problem)
    assert str(tmp_path) not in caught.value.problem


def test_both_peers_are_locked_and_told_of_the_same_upstream(tmp_path: Path) -> None:
    assert peer_version(SMG) == "1.13.0"
    assert peer_version(LITELLM).startswith("1.")
    assert "http://127.0.0.1:4321" in Smg(SMG, tmp_path, 4321).command().argv
    litellm = LiteLlm(LITELLM, tmp_path, 4321)
    config = Path(litellm.command().argv[2]).read_text(encoding="utf-8")
    assert "api_base: http://127.0.0.1:4321/v1" in config
    for scenario in SCENARIOS:
        name = model_name(deltas=scenario.deltas, interval_ms=scenario.interval_ms)
        assert f"model_name: {name}\n" in config
