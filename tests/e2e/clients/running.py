"""Starts the programs as their users would: their client's interpreter, base URL and key."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

from infra.local.errors import StackError
from infra.local.plan import mcp_programs
from infra.local.settings import LocalSettings

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / ".cache" / "clients"
PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT_S = 120.0
Told = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """What a program wrote until its end."""

    status: int
    out: str
    err: str


class Launcher:
    """Runs programs against one origin with one key, in a home without anybody's settings."""

    def __init__(self, home: Path, *, url: str, key: str) -> None:
        self.home = home
        self._variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "NO_PROXY": "127.0.0.1",
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": key,
        }

    async def python(self, program: str, model: str) -> Told:
        """Run a program of the Python clients and return what it told."""
        python = installed(CLIENTS / "python" / "bin" / "python")
        name = f"{__package__}.programs.{program}"
        return _told(await self.run(str(python), "-m", name, cwd=ROOT, MODEL=model))

    async def node(self, program: str, model: str) -> Told:
        """Run a program of the Node clients and return what it told."""
        node = mcp_programs(LocalSettings.load())["NODE"]
        folder = self._beside_node_modules()
        return _told(await self.run(node, f"{program}.mjs", cwd=folder, MODEL=model))

    async def run(self, *command: str, cwd: Path, **variables: str) -> Ended:
        """Run a command to its end. Raises TimeoutError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=self._variables | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    def _beside_node_modules(self) -> Path:
        """Node looks for modules in the folders above a program."""
        folder = self.home / "programs"
        if not folder.exists():
            copytree(PROGRAMS, folder)
            modules = installed(CLIENTS / "node" / "node_modules")
            (folder / "node_modules").symlink_to(modules, target_is_directory=True)
        return folder


def installed(path: Path) -> Path:
    """The path itself. Raises StackError when it is not there."""
    if not path.exists():
        raise StackError("The clients are not installed", fix="Run `make setup`")
    return path


def _told(ended: Ended) -> Told:
    assert ended.status == 0, ended.err
    told: Told = json.loads(ended.out)
    return told
