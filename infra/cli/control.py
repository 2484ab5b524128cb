"""`antiphon status` and `antiphon down`: look at a running stack from outside, and stop it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import psutil
from cyclopts import Parameter

from infra.cli.output import megabytes, out, show, table_of
from infra.local.settings import LocalSettings
from infra.local.state import PartStatus, StackStatus, State, read

STOP_TIMEOUT_S = 90.0
NOT_READY = 3


def rss_bytes(pid: int | None) -> int | None:
    """Resident memory of a process and all it started; None when it is gone."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)
    except psutil.Error:
        return None


def _row(part: PartStatus) -> dict[str, Any]:
    return {**asdict(part), "rss_bytes": rss_bytes(part.pid)}


def _report(settings: LocalSettings, status: StackStatus | None) -> dict[str, Any]:
    if status is None:
        return {"state": State.STOPPED, "home": str(settings.home), "parts": []}
    if status.supervisor() is None:
        # A supervisor that was killed can't say so; its parts died with it.
        state = State.FAILED if status.state is State.FAILED else State.STOPPED
        gone = [PartStatus(part.name, State.STOPPED, log=part.log) for part in status.parts]
        return {
            "state": state,
            "home": str(settings.home),
            "error": status.error,
            "parts": [_row(part) for part in gone],
        }
    return {
        "state": status.overall,
        "home": str(settings.home),
        "url": status.url,
        "pid": status.pid,
        "error": status.error,
        "rss_bytes": rss_bytes(status.pid),
        "parts": [_row(part) for part in status.parts],
    }


def status(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Show every part with its state, process, port and memory; exit code 3 unless all is ready.

    Parameters
    ----------
    as_json
        One JSON object for programs.
    """
    settings = LocalSettings.load()
    report = _report(settings, read(settings.home))
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    return 0 if report["state"] == State.READY else NOT_READY


def _show(report: dict[str, Any]) -> None:
    out.print(f"stack: [bold]{report['state']}[/bold]  {report.get('url', '')}")
    if report.get("error"):
        out.print(report["error"], markup=False)
    if not report["parts"]:
        return
    table = table_of("part", "state", "pid", "port", "memory", "restarts")
    for part in report["parts"]:
        table.add_row(
            part["name"],
            part["state"],
            str(part["pid"] or ""),
            str(part["port"] or ""),
            megabytes(part["rss_bytes"]),
            str(part["restarts"] or ""),
        )
    show(table)


def down() -> int:
    """Stop the stack that runs in this home and wait until it is gone."""
    settings = LocalSettings.load()
    status = read(settings.home)
    supervisor = status.supervisor() if status else None
    if supervisor is None:
        out.print("No stack is running.")
        return 0
    supervisor.terminate()
    try:
        supervisor.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        # The kernel takes its parts along.
        supervisor.kill()
        supervisor.wait(STOP_TIMEOUT_S)
    out.print("Stopped.")
    return 0
