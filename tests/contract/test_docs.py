"""What the documentation points to exists: pages, headings, targets, commands, topics, files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from contracts.topics import EXTERNAL_READERS, TOPICS
from infra.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in chain(
        [ROOT / "README.md"], (ROOT / "docs").rglob("*.md"), (ROOT / "infra").rglob("*.md")
    )
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_MAKE_IN_CODE = re.compile(r"^(?:[A-Z0-9_]+=\S+ )*make ([a-z][a-z-]*)", re.MULTILINE)
_MAKE_IN_PROSE = re.compile(r"`make ([a-z][a-z-]*)")
_ANTIPHON = re.compile(r"(?:^|`|bin/|\|\s|\$\s)antiphon ([a-z]+)(?: ([a-z]+))?", re.MULTILINE)
_FILE = re.compile(r"`((?:contracts|services|infra|tests|docs|requirements)/[\w./-]+)`")
_MODULE = re.compile(r"python -m ((?:services|infra|tests)[\w.]*)")
GROUPS = {"topics", "keys"}


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchor(heading: str) -> str:
    """Return the name that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in _HEADING.findall(prose(page))}


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_links_between_pages_resolve(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, name = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if name and target.suffix == ".md":
            assert name in anchors(target), f"{page.name} links to {link}"


def test_make_targets_exist(page: Path) -> None:
    code = "".join(block for _, block in _FENCE.findall(page.read_text(encoding="utf-8")))
    named = {*_MAKE_IN_CODE.findall(code), *_MAKE_IN_PROSE.findall(prose(page))}
    assert named <= make_targets()


def test_commands_exist(page: Path) -> None:
    known = set(app)
    for command, sub in _ANTIPHON.findall(page.read_text(encoding="utf-8")):
        assert command in known, f"antiphon {command}"
        if command in GROUPS and sub:
            assert sub in set(app[command]), f"antiphon {command} {sub}"


def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in _FILE.findall(text):
        assert (ROOT / name).exists(), name
    for module in _MODULE.findall(text):
        path = ROOT / Path(*module.split("."))
        found = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        assert found, module


def test_python_examples_parse(page: Path) -> None:
    for language, code in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(code)


def table_rows(text: str, first_column: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table whose first column has that title."""
    start = text.index(f"| {first_column} |")
    for line in text[start:].splitlines()[2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def topics_in(cell: str) -> set[str]:
    return set(re.findall(r"`([a-z_.]+)`", cell))


def test_the_readme_says_who_consumes_and_produces_what() -> None:
    rows = {row[0]: row for row in table_rows((ROOT / "README.md").read_text(), "service")}
    services = {name for topic in TOPICS for name in (*topic.owner, *topic.readers)}
    services -= EXTERNAL_READERS
    assert set(rows) == services
    for service, row in rows.items():
        read = {t.name for t in TOPICS if service in (*t.readers, *t.tails)}
        written = {t.name for t in TOPICS if service in t.owner}
        assert topics_in(row[2]) == read, service
        assert topics_in(row[3]) == written, service


def test_the_readme_lists_every_topic() -> None:
    rows = table_rows((ROOT / "README.md").read_text(), "topic")
    assert set().union(*(topics_in(row[0]) for row in rows)) == {topic.name for topic in TOPICS}


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in _LINK.findall(index)}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_decisions_are_numbered_without_gaps_and_all_listed() -> None:
    folder = ROOT / "infra" / "decisions"
    records = sorted(folder.glob("[0-9]*.md"))
    assert [path.name[:4] for path in records] == [
        f"{number:04}" for number in range(1, len(records) + 1)
    ]
    listed = _LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert {path.name for path in records} <= set(listed)
    for record in records:
        headings = _HEADING.findall(record.read_text(encoding="utf-8"))
        assert headings[1:] == ["Context", "Decision", "Consequences", "Rejected"], record.name
