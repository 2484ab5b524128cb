"""How the command talks to a person: progress lines, tables, sizes."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

_WIDEST = 100_000

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """Prints each line with the seconds since the start before it."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one line at once, also into a pipe."""
        seconds = time.monotonic() - self._began_s
        out.print(f"[dim]{seconds:6.1f} s[/dim]  {line}", markup=True)
        out.file.flush()


def megabytes(size_bytes: int | None) -> str:
    """Give a size for a table."""
    return "" if size_bytes is None else f"{size_bytes / 1e6:.0f} MB"


def table_of(*columns: str) -> Table:
    """Make a table whose cells are never cut short; print it with `show`."""
    table = Table(box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(table: Table) -> None:
    """Print a table, in a pipe as wide as it needs to be, so that a row is a line."""
    if out.is_terminal:
        out.print(table)
        return
    # A console never prints wider than it is, and in a pipe it takes itself for 80 columns.
    wide = Console(file=out.file, width=_WIDEST, highlight=False)
    needed = wide.measure(table).maximum
    Console(file=out.file, width=max(1, needed), highlight=False).print(table)
