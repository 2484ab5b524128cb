"""Where fetched Java archives live, and the class path they give; `infra.local.fetch` gets them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from pathlib import Path

from infra.local.errors import StackError
from infra.local.jars import Jar, locked

Report = Callable[[str], None]
"""Takes one line for a person who waits."""


def repository(downloads: Path) -> Path:
    """Root of the jars in Maven's layout."""
    return downloads / "maven"


def stamp(name: str, downloads: Path) -> Path:
    """The file that says which lock was verified against the jars, so that it is done once."""
    return downloads / f"{name}.verified"


def stamp_text(jars: tuple[Jar, ...]) -> str:
    """What a stamp holds for `jars`."""
    return "\n".join(str(jar) for jar in jars)


async def class_path(name: str, downloads: Path, report: Report) -> str:
    """Give the class path of a locked part, `kafka` or `s3proxy`; fetches what is missing first.

    A fetch takes seconds to minutes and is reported line by line. Raises StackError when the disk
    is full or the archives can't be had.
    """
    jars = locked(name)
    paths = [repository(downloads) / jar.path for jar in jars]
    if not _is_verified(stamp(name, downloads), jars, paths):
        await _fetch(name, downloads, report)
    return ":".join(str(path) for path in paths)


def _is_verified(verified: Path, jars: tuple[Jar, ...], paths: list[Path]) -> bool:
    if not verified.is_file() or verified.read_text(encoding="utf-8") != stamp_text(jars):
        return False
    return all(path.is_file() for path in paths)


async def _fetch(name: str, downloads: Path, report: Report) -> None:
    # A process of its own: the resolver's imports cost half a second that later starts don't pay.
    command = (sys.executable, "-m", "infra.local.fetch", name, str(downloads))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    line = ""
    try:
        while process.stdout is not None and (raw := await process.stdout.readline()):
            line = raw.decode().rstrip()
            report(line)
    except BaseException:
        process.kill()
        raise
    finally:
        code = await process.wait()
    if code != 0:
        raise StackError(
            line or f"{name} could not be fetched",
            fix="Run the command again to go on where it stopped",
        )
