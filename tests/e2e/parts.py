"""Programs of the tests beside the stack: an MCP server over HTTP, and the providers file."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from infra.local.downloads import Report
from infra.local.part import Command
from infra.local.ports import HOST, Ports
from infra.local.upstream import local_providers

DIALECTS = {"responses": "gpt-4o-mini", "chat": "chat-model", "local": "smollm2-135m"}
"""The model to ask for each provider that a client should not be able to tell from the others."""
IMPATIENT = "impatient-model"
"""A model of the scripted upstream whose provider may not be silent for half a second."""
NARROW = "narrow-model"
"""A model whose provider may have one request under way, and is left alone after 3 failures."""
TOOLLESS = "toolless-model"
"""A model that can't call tools."""
SPARED = "spared-model"
"""A model with two providers, of either dialect."""
DETACHED = "detached-model"
"""A model whose provider works on background responses by itself."""


class McpOverHttp:
    """`server-everything` on streamable HTTP."""

    name = "mcp-http"

    def __init__(self, home: Path, command: Sequence[str]) -> None:
        self.home = home
        self.port: int | None = None
        self._command = command
        self._ports = Ports(home)

    @property
    def url(self) -> str:
        """The server's endpoint; valid after `prepare`."""
        return f"http://{HOST}:{self.port}/mcp"

    def environment(self) -> dict[str, str]:
        """Nothing: the servers file of the broker names it."""
        return {}

    async def prepare(self, report: Report) -> Command:
        """Choose its port."""
        self.port = self._ports.claim(self.name)
        return Command(
            argv=(*self._command, "streamableHttp"),
            env={"PORT": str(self.port)},
            # Asked to end, it waits for clients that are gone.
            stop_signal=signal.SIGKILL,
        )

    async def is_ready(self) -> bool:
        """Whether it accepts connections."""
        with suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, self.port)
            writer.close()
            return True
        return False


def providers_file(*, upstream: str, model: str) -> str:
    """Give the text of a providers file over the scripted upstream and the real model.

    The first is called `openai`, so that its models have prices.
    """
    return f"""
[[providers]]
name = "openai"
dialect = "responses"
base_url = "{upstream}"
models = ["{DIALECTS["responses"]}", "gpt-*", "unknown-upstream"]
hosted_tools = ["web_search", "file_search", "code_interpreter", "image_generation"]
breaker_failures = 0

[[providers]]
name = "chat"
dialect = "chat"
base_url = "{upstream}"
models = ["{DIALECTS["chat"]}"]
breaker_failures = 0

[[providers]]
name = "impatient"
base_url = "{upstream}"
models = ["{IMPATIENT}"]
first_byte_timeout_seconds = 0.5
idle_timeout_seconds = 0.5
total_timeout_seconds = 2
retries = 0
breaker_failures = 0

[[providers]]
name = "narrow"
base_url = "{upstream}"
models = ["{NARROW}"]
retries = 0
max_concurrency = 1
concurrency_wait_seconds = 0.1
breaker_failures = 3
breaker_open_seconds = 1

[[providers]]
name = "toolless"
dialect = "chat"
base_url = "{upstream}"
models = ["{TOOLLESS}"]
models_without_tools = ["*"]

[[providers]]
name = "spent"
base_url = "{upstream}"
models = ["{SPARED}"]
retries = 0

[[providers]]
name = "spare"
dialect = "chat"
base_url = "{upstream}"
models = ["{SPARED}"]

[[providers]]
name = "detached"
base_url = "{upstream}"
models = ["{DETACHED}"]
background = true
background_seconds = 60
breaker_failures = 0

{local_providers(model)}
"""


def mcp_servers_file(*, command: Sequence[str], url: str) -> str:
    """Give the text of a servers file with `server-everything` on both transports."""
    program, *arguments = command
    quoted = ", ".join(f'"{argument}"' for argument in (*arguments, "stdio"))
    return f"""
[[servers]]
label = "everything"
transport = "stdio"
command = "{program}"
args = [{quoted}]

[[servers]]
label = "everything-http"
transport = "streamable_http"
url = "{url}"
"""
