"""`antiphon logs`: what the parts wrote, with the part's name before each line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO

from infra.cli.output import out
from infra.local.errors import StackError
from infra.local.process import tail
from infra.local.settings import LocalSettings

POLL_S = 0.2


def logs(part: str | None = None, /, *, follow: bool = False, lines: int = 50) -> int:
    """Show the last lines of one part's log, or of all.

    Parameters
    ----------
    part
        Name of a part as in `antiphon status`, or `supervisor`; all when none is given.
    follow
        Go on with new lines until Ctrl-C.
    lines
        How many of the last lines of each log.
    """
    folder = LocalSettings.load().home / "logs"
    files = sorted(folder.glob("*.log"))
    if part is not None:
        names = ", ".join(file.stem for file in files)
        files = [file for file in files if file.stem == part]
        if not files:
            raise StackError(f"There is no log of {part} in {folder}", fix=f"Name one of: {names}")
    width = max((len(file.stem) for file in files), default=0)
    for file in files:
        for line in tail(file, lines).splitlines():
            _show(file, line, width if part is None else 0)
    if follow and files:
        asyncio.run(_follow(files, width if part is None else 0))
    return 0


def _show(file: Path, line: str, width: int) -> None:
    prefix = f"{file.stem:<{width}} | " if width else ""
    out.print(f"{prefix}{line}", markup=False)


async def _follow(files: list[Path], width: int) -> None:
    opened: dict[Path, BinaryIO] = {}
    try:
        for file in files:
            opened[file] = file.open("rb")
            opened[file].seek(0, 2)
        while True:
            for file, stream in opened.items():
                for raw in stream:
                    _show(file, raw.decode(errors="replace").rstrip(), width)
            await asyncio.sleep(POLL_S)
    finally:
        for stream in opened.values():
            stream.close()
