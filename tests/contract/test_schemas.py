"""Generated files are current, and nobody can break a committed contract unawares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from contracts.registry import CONTRACTS
from infra import schemas
from infra.compatibility import breaking_changes

SCHEMAS = schemas.ROOT / schemas.SCHEMAS
EVENT = "antiphon.cost.recorded.v1"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what is committed, to be changed."""
    shutil.copytree(SCHEMAS, tmp_path / schemas.SCHEMAS)
    (tmp_path / "docs").mkdir()
    shutil.copy(schemas.ROOT / schemas.TOPICS_PAGE, tmp_path / schemas.TOPICS_PAGE)
    return tmp_path


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / schemas.SCHEMAS / f"{name}.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_what_is_committed_is_current() -> None:
    paths = schemas.stale(schemas.generate())
    assert paths == [], "run `make schemas` and commit what it writes"


def test_the_contracts_break_nothing_that_is_committed() -> None:
    assert schemas.broken(schemas.generate()) == ""


def test_generation_is_deterministic() -> None:
    assert schemas.generate() == schemas.generate()


def test_every_contract_has_a_schema_and_no_schema_is_left_over() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(CONTRACTS)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_schema_is_valid_and_of_the_dialect_that_asyncapi_tools_read(name: str) -> None:
    text = (SCHEMAS / f"{name}.json").read_text("utf-8")
    schema = json.loads(text)
    Draft7Validator.check_schema(schema)
    assert schema["$id"] == f"urn:antiphon:schema:{name}"
    assert schema["properties"]["type"]["const"] == name
    newer = ("$defs", "prefixItems", "dependentRequired", "unevaluated", "$dynamic", "minContains")
    assert not [keyword for keyword in newer if f'"{keyword}' in text]


def test_a_check_passes_on_what_is_committed(capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_check_names_what_is_stale(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(checkout, EVENT, "One line of the ledger.", "One line.")
    (checkout / schemas.TOPICS_PAGE).write_text(
        f"# Topics\n\n{schemas.TABLE_START}\n{schemas.TABLE_END}\n", "utf-8"
    )
    assert schemas.main(["--check"], checkout) == 1
    assert capsys.readouterr().err == (
        f"Not current with contracts/: contracts/schemas/{EVENT}.json, docs/topics.md. "
        "Run `make schemas`.\n"
    )
    assert schemas.main([], checkout) == 0
    assert schemas.main(["--check"], checkout) == 0


def test_an_optional_field_more_is_written_without_ado(checkout: Path) -> None:
    path = checkout / schemas.SCHEMAS / f"{EVENT}.json"
    committed = json.loads(path.read_text("utf-8"))
    del committed["definitions"]["CostRecordedV1"]["properties"]["service_tier"]
    path.write_text(json.dumps(committed), "utf-8")
    assert schemas.main([], checkout) == 0
    assert "service_tier" in path.read_text("utf-8")


def test_a_breaking_change_is_refused_unless_it_is_accepted(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkout, EVENT, '"quantity"', '"amount"')
    before = (checkout / schemas.SCHEMAS / f"{EVENT}.json").read_text("utf-8")
    assert schemas.main([], checkout) == 2
    message = capsys.readouterr().err
    assert f"{EVENT}: `data.amount` is gone or has another name" in message
    assert "add a new version beside it" in message
    assert (checkout / schemas.SCHEMAS / f"{EVENT}.json").read_text("utf-8") == before
    assert schemas.main(["--check"], checkout) == 2
    assert schemas.main(["--accept-breaking"], checkout) == 0
    assert schemas.main(["--check"], checkout) == 0


def test_a_contract_that_disappears_is_breaking(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = checkout / schemas.SCHEMAS / "antiphon.response.paused.v1.json"
    shutil.copy(SCHEMAS / f"{EVENT}.json", gone)
    assert schemas.main([], checkout) == 2
    assert "antiphon.response.paused.v1: the contract is gone" in capsys.readouterr().err
    assert schemas.main(["--accept-breaking"], checkout) == 0
    assert not gone.exists()


def test_a_new_contract_is_written(checkout: Path) -> None:
    path = checkout / schemas.SCHEMAS / f"{EVENT}.json"
    path.unlink()
    assert schemas.main([], checkout) == 0
    assert path.read_text("utf-8") == (SCHEMAS / f"{EVENT}.json").read_text("utf-8")


def test_a_page_without_the_markers_is_told_so(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / schemas.TOPICS_PAGE).write_text("# Topics\n", "utf-8")
    assert schemas.main([], checkout) == 1
    assert "docs/topics.md needs the lines" in capsys.readouterr().err


@pytest.mark.parametrize("name", CONTRACTS)
def test_losing_any_field_of_any_contract_is_noticed(name: str) -> None:
    committed = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    for definition, model in committed["definitions"].items():
        for field in model["properties"]:
            changed = json.loads(json.dumps(committed))
            properties = changed["definitions"][definition]["properties"]
            properties[f"{field}_renamed"] = properties.pop(field)
            findings = breaking_changes(committed, changed)
            assert any(f"{field}` is gone" in finding for finding in findings)
