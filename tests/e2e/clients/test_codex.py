"""Codex CLI does a whole task: it reads a file with its shell, writes another and reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients.running import CLIENTS, Launcher, installed
from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
TASK = """call: exec_command {"cmd": "cat notes.txt"}
then: exec_command {"cmd": "tr a-z A-Z < notes.txt > loud.txt && echo written"}
say: All of it: {output}"""
# What models of other makers can't do is switched off as their users would.
PLAIN = """
web_search = "disabled"

[agents]
enabled = false

[features]
goals = false
"""


@dataclass(frozen=True)
class Task:
    """What Codex printed, and the folder that it worked in."""

    told: list[dict[str, Any]]
    folder: Path

    def items(self, kind: str) -> list[dict[str, Any]]:
        """The finished items of a kind, in order."""
        items = [event["item"] for event in self.told if event["type"] == "item.completed"]
        return [item for item in items if item["type"] == kind]

    @property
    def notices(self) -> list[str]:
        """What Codex complained about, but for not having heard of the model."""
        said = [item["message"] for item in self.items("error")]
        said += [event["message"] for event in self.told if event["type"] == "error"]
        return [message for message in said if not message.startswith("Model metadata")]


@dataclass(frozen=True)
class Codex:
    """Runs tasks in a folder and a home of their own."""

    launcher: Launcher
    stack: Stack
    folder: Path
    provider: str = ""
    """Further lines of the provider's table."""

    async def do(self, task: str, *options: str, model: str = MODEL, config: str = "") -> Task:
        """Run `codex exec` to its end."""
        home, work = self.folder / "codex", self.folder / "work"
        for folder in (home, work):
            folder.mkdir(exist_ok=True)
        (work / "notes.txt").write_text("seven swans\n")
        (home / "config.toml").write_text(
            f'model = "{model}"\nmodel_provider = "antiphon"\n{config}\n'
            f'[model_providers.antiphon]\nname = "Antiphon"\nbase_url = "{self.stack.url}/v1"\n'
            f'env_key = "OPENAI_API_KEY"\nwire_api = "responses"\n{self.provider}'
        )
        # The tests run in a container or on a build machine, where its sandbox can't.
        command = ("exec", *options, "--json", "--skip-git-repo-check")
        free = "--dangerously-bypass-approvals-and-sandbox"
        ended = await self.launcher.run(
            str(binary()), *command, free, task, cwd=work, CODEX_HOME=str(home)
        )
        assert ended.status == 0, ended.out + ended.err
        return Task([json.loads(line) for line in ended.out.splitlines()], work)


@pytest.fixture
def codex(launcher: Launcher, stack: Stack, tmp_path: Path, upstream: UpstreamProcess) -> Codex:
    """Codex over HTTP."""
    return Codex(launcher, stack, tmp_path)


@pytest.fixture
def codex_over_websocket(
    launcher: Launcher, stack: Stack, tmp_path: Path, upstream: UpstreamProcess
) -> Codex:
    """Codex over one WebSocket; it would fall back to HTTP, and say so."""
    return Codex(launcher, stack, tmp_path, "supports_websockets = true\n")


def binary() -> Path:
    """The program itself, which `codex.js` would only start."""
    packages = installed(CLIENTS / "node" / "node_modules" / "@openai")
    [found] = packages.glob("codex-*/vendor/*/bin/codex")
    return found


def assert_done(task: Task) -> None:
    """The whole task was done, in two steps of tools and a last word."""
    assert task.notices == []
    ran = task.items("command_execution")
    assert [(command["aggregated_output"], command["exit_code"]) for command in ran] == [
        ("seven swans\n", 0),
        ("written\n", 0),
    ]
    assert (task.folder / "loud.txt").read_text() == "SEVEN SWANS\n"
    [message] = task.items("agent_message")
    assert message["text"].startswith("All of it: exec_command -> ")
    assert task.told[-1]["type"] == "turn.completed"
    assert task.told[-1]["usage"]["output_tokens"] > 0


async def test_codex_does_a_whole_task_over_http(codex: Codex) -> None:
    assert_done(await codex.do(TASK))


async def test_codex_does_a_whole_task_with_a_model_of_a_chat_provider(codex: Codex) -> None:
    assert_done(await codex.do(TASK, model=DIALECTS["chat"], config=PLAIN))


async def test_codex_does_a_whole_task_over_a_websocket(
    codex_over_websocket: Codex, upstream: UpstreamProcess
) -> None:
    assert_done(await codex_over_websocket.do(TASK))

    # It marks each request that goes over a WebSocket, and the marks go on to the provider.
    asked = [request["body"] for request in upstream.requests("exec_command")]
    assert len(asked) == 3
    assert all("x-codex-ws-stream-request-start-ms" in body["client_metadata"] for body in asked)
    # It sends only what is new; the provider is told everything.
    assert [len(body["input"]) - len(asked[0]["input"]) for body in asked] == [0, 2, 4]


async def test_codex_does_a_whole_task_over_a_websocket_with_a_model_of_a_chat_provider(
    codex_over_websocket: Codex,
) -> None:
    assert_done(await codex_over_websocket.do(TASK, model=DIALECTS["chat"], config=PLAIN))


async def test_codex_goes_on_with_a_session(codex: Codex) -> None:
    first = await codex.do("say: The word is heron.")
    session = first.told[0]["thread_id"]
    command = ("resume", session)
    second = await codex.do("script:recall", *command)
    [message] = second.items("agent_message")
    assert message["text"].endswith("say: The word is heron.|The word is heron.")


async def test_codex_shows_why_a_request_was_refused(codex: Codex) -> None:
    with pytest.raises(AssertionError, match="Invalid value: 'scripted'"):
        await codex.do("fault:400")
