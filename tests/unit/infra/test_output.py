"""What the command prints for programs: a row is a line, whatever it holds."""

from __future__ import annotations

import pytest

from infra.cli.keys import _row
from infra.cli.output import show, table_of

KEY = {
    "id": "key_019a1f2e3d4c7b5a8f9e0d1c2b3a4958",
    "name": "two\nlines",
    "project": "default",
    "user": None,
    "prefix": "sk-antiphon-abcdef",
    "scopes": ["api", "admin"],
    "status": "active",
    "expires_at": 1_800_000_000,
    "allowed_models": ["gpt-*", "other"],
    "requests_per_minute": 5,
    "tokens_per_minute": None,
}


def test_a_table_in_a_pipe_is_as_wide_as_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of("id", "name", "empty")
    rows = [(f"key_{number}", "word " * 200, "") for number in range(3)]
    for row in rows:
        table.add_row(*row)
    show(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rows)
    for line, (identifier, name, _) in zip(lines[1:], rows, strict=True):
        assert identifier in line
        assert name.strip() in line


def test_a_key_is_one_line() -> None:
    cells = _row(KEY)
    assert cells[1] == "two lines"
    assert cells[3] == ""
    assert cells[5:] == [
        "api, admin",
        "active",
        "2027-01-15T08:00:00Z",
        "gpt-*, other",
        "5",
        "",
    ]
