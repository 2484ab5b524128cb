"""`antiphon up`: start the stack, in the foreground or detached."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Annotated

from cyclopts import Parameter

from infra.cli.output import Progress, out
from infra.local.credentials import Credentials
from infra.local.errors import StackError
from infra.local.foreground import run_stack, until_interrupted
from infra.local.process import log_file
from infra.local.settings import LocalSettings
from infra.local.stack import Stack
from infra.local.state import State, read, running

POLL_S = 0.1
REPLICATED = ("intake", "worker")


def replica_settings(replicas: list[str]) -> dict[str, str]:
    """Turn `worker=2` into settings; raises StackError for anything else."""
    settings = {}
    for item in replicas:
        service, separator, number = item.partition("=")
        if service not in REPLICATED or not separator:
            raise StackError(
                f"--replicas {item} names no number of {' or '.join(REPLICATED)}",
                fix="Write for example --replicas worker=2",
            )
        settings[f"{service}_replicas"] = number
    return settings


def up(
    *, detach: bool = False, replicas: Annotated[list[str] | None, Parameter(negative="")] = None
) -> int:
    """Start Kafka, PostgreSQL, S3 and all services.

    Parameters
    ----------
    detach
        Return when every part is ready; without it the stack ends with this command.
    replicas
        Instances of a service, such as worker=2; may be repeated.
    """
    overrides = replica_settings(replicas or [])
    settings = LocalSettings.load(**overrides)
    if detach:
        return _detached(settings, replicas or [])
    return run_stack(settings, Progress(), _serve)


async def _serve(stack: Stack) -> int:
    show_ready(stack.settings, stack.admin_key)
    out.print("Ctrl-C stops it.")
    return await until_interrupted(stack)


def show_ready(settings: LocalSettings, admin_key: str) -> None:
    """Say where the stack answers and with which key."""
    out.print(f"\n[bold]Antiphon is ready[/bold] at [bold]{settings.url}/v1[/bold]")
    out.print(f"API key: {admin_key}\n")
    out.file.flush()


def admin_key(settings: LocalSettings) -> str:
    """The key of the environment, else the one that the home keeps."""
    given = settings.antiphon_admin_key
    return given.get_secret_value() if given else Credentials.of(settings.home).admin_key


def _detached(settings: LocalSettings, replicas: list[str]) -> int:
    if running(settings.home):
        raise StackError(
            f"A stack is already running in {settings.home}",
            fix="Look at it with `antiphon status`, or stop it with `antiphon down` first",
        )
    log = log_file(settings.home, "supervisor")
    # For its owner only: the supervisor's own lines hold the admin key.
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    arguments = [argument for item in replicas for argument in ("--replicas", item)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-m", "infra.cli.main", "up", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
    return asyncio.run(_follow_start(settings, process))


async def _follow_start(settings: LocalSettings, process: subprocess.Popen[bytes]) -> int:
    """Show the supervisor's lines until the stack is ready or the supervisor has ended."""
    last_words: list[str] = []
    with log_file(settings.home, "supervisor").open(encoding="utf-8") as lines:
        while True:
            ended = process.poll() is not None
            status = read(settings.home)
            own = status is not None and status.pid == process.pid
            ready = own and status is not None and status.state is State.READY
            for line in lines:
                # The address and the key are shown below, once the state says ready.
                if " s  " in line:
                    out.print(line.rstrip(), markup=False)
                else:
                    last_words.append(line.rstrip())
            if ended:
                out.print("\n".join(last_words), markup=False)
                return process.returncode or 1
            if ready:
                show_ready(settings, admin_key(settings))
                out.print("Stop it with `antiphon down` or `make down`.")
                return 0
            await asyncio.sleep(POLL_S)
