"""The `antiphon` command as a person meets it."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.ports import free_port
from infra.local.settings import LocalSettings
from infra.local.state import State, read
from tests.integration.infra.programs import until

BOUND_S = 120
UPSTREAMS = ("OPENAI_API_KEY", "ANTIPHON_PROVIDERS", "UPSTREAM_BASE_URL", "DEMO_MODEL")
SERVERS = ("KAFKA_BOOTSTRAP", "DATABASE_URL", "S3_ENDPOINT", "ANTIPHON_ADMIN_KEY")


class Antiphon:
    """Runs the command with a home and a port of its own."""

    def __init__(self, home: Path, port: int) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in (*UPSTREAMS, *SERVERS)}
        downloads = LocalSettings.load().downloads
        own = {"ANTIPHON_HOME": home, "ANTIPHON_DOWNLOADS": downloads, "ANTIPHON_PORT": port}
        self.environment = {**inherited, **{name: str(value) for name, value in own.items()}}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "infra.cli.main", *arguments]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )


@pytest.fixture
def antiphon(tmp_path: Path) -> Antiphon:
    return Antiphon(tmp_path, free_port())


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_is_one_sentence_with_the_fix(antiphon: Antiphon, taken_port: int) -> None:
    ended = antiphon.run("up", ANTIPHON_PORT=str(taken_port))
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"antiphon: Port {taken_port} is taken by another program. ")
    assert "ANTIPHON_PORT=" in sentence


def test_a_home_that_cannot_be_made_is_one_sentence_with_the_fix(antiphon: Antiphon) -> None:
    ended = antiphon.run("up", ANTIPHON_HOME="/proc/antiphon")
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert sentence.endswith("Set ANTIPHON_HOME to a folder that you may write to.")


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_second_stack_in_one_home_is_refused(
    antiphon: Antiphon, tmp_path: Path, command: str
) -> None:
    with (tmp_path / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = antiphon.run(command)
    assert ended.returncode == 1
    assert "A stack is already running" in ended.stderr
    assert "antiphon down" in ended.stderr


def test_without_a_stack_there_is_nothing_to_stop_and_a_status_that_says_so(
    antiphon: Antiphon,
) -> None:
    assert antiphon.run("down").returncode == 0
    status = antiphon.run("status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["state"] == "stopped"


def test_a_call_without_a_stack_says_how_to_start_one(antiphon: Antiphon) -> None:
    ended = antiphon.run("keys", "list")
    assert ended.returncode == 1
    assert "Start the stack with `antiphon up`" in ended.stderr


def test_the_demo_answers_twice_through_the_whole_system_and_leaves_nothing_behind(
    antiphon: Antiphon, tmp_path: Path
) -> None:
    ended = antiphon.run("demo", "--once")
    assert ended.returncode == 0, ended.stderr
    assert "The capital of France is Paris." in ended.stdout
    assert ended.stdout.count("cost of resp_") == 2
    status = read(tmp_path)
    assert status is not None
    assert status.state is State.STOPPED
    assert {part.pid for part in status.parts} == {None}


async def test_a_detached_stack_lists_its_parts_and_dies_with_its_supervisor(
    antiphon: Antiphon, tmp_path: Path
) -> None:
    started = antiphon.run("up", "--detach", "--replicas", "worker=2")
    assert started.returncode == 0, started.stderr + started.stdout
    answer = antiphon.run("status", "--json")
    status = json.loads(answer.stdout)
    supervisor = psutil.Process(status["pid"])
    family = supervisor.children(recursive=True)
    try:
        assert answer.returncode == 0
        parts = {part["name"]: part for part in status["parts"]}
        assert {name for name, part in parts.items() if part["state"] == "ready"} >= {
            *("kafka", "postgres", "s3", "model", "artifacts", "costs", "mcp_broker", "webhooks"),
            *("worker", "worker-2", "intake"),
        }
        assert all(part["rss_bytes"] for part in parts.values() if part["state"] == "ready")
        assert status["url"].endswith(str(parts["intake"]["port"]))
    finally:
        supervisor.kill()
    await until(lambda: not [member for member in family if member.is_running()])
    assert json.loads(antiphon.run("status", "--json").stdout)["state"] == "stopped"
