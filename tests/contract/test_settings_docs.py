"""The tables of settings in docs/admin.md are those of the code."""

from __future__ import annotations

import pytest

from infra.settings_docs import PAGE, SettingsDocsError, main, rendered, tables


def test_the_tables_of_settings_are_current() -> None:
    assert main(["--check"]) == 0, "run `python -m infra.settings_docs`"


def test_every_setting_has_a_name_a_value_a_default_and_a_meaning() -> None:
    for name, table in tables().items():
        rows = [row.strip("|").split(" | ") for row in table.splitlines()[2:]]
        assert rows, name
        assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows), name


def test_a_stale_table_is_made_anew() -> None:
    page = PAGE.read_text(encoding="utf-8")
    stale = page.replace("| `WORKER_TICK_MS` |", "| `WORKER_TOCK_MS` |")
    assert stale != page
    assert rendered(stale) == page


def test_a_section_that_is_missing_is_an_error() -> None:
    with pytest.raises(SettingsDocsError, match="costs"):
        rendered("a page without sections")


def test_no_default_depends_on_the_machine() -> None:
    text = "".join(tables().values())
    assert str(PAGE.parents[1]) not in text
