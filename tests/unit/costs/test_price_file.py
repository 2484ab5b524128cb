"""Prices of the operator's own: which entry counts, and what is said about mistakes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from services.costs.clients.price_file import FilePrices
from services.costs.clients.published import PublishedPrices
from services.costs.domain.charges import charge_response, charge_tool_result
from services.costs.domain.prices import LayeredBook
from services.costs.errors import PriceFileError
from services.costs.settings import CostsSettings
from tests.unit.costs.facts import FINISHED, finished, response, tool_result, usage

OWN = """
[[models]]
match = "smollm2-*"
provider = "local"
input_per_million_usd = "0.00"
output_per_million_usd = 0

[[models]]
match = "gpt-4o-mini"
service_tier = "priority"
input_per_million_usd = 1.1
cached_input_per_million_usd = "0.3"
output_per_million_usd = "4"

[[models]]
match = "thinker"
input_per_million_usd = 1
cache_write_per_million_usd = 2
output_per_million_usd = 3
reasoning_per_million_usd = 4
per_request_usd = "0.005"

[[tools]]
match = "everything/*"
provider = "mcp_broker"
per_call_usd = "0.001"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN, "utf-8")
    return path


@pytest.fixture
def book(own: Path) -> LayeredBook:
    return LayeredBook([FilePrices.load(own), PublishedPrices()])


def test_a_model_that_the_operator_gives_for_nothing_costs_zero_and_says_so(
    book: LayeredBook,
) -> None:
    fact = finished(model="SmolLM2-135M", provider="local")
    for line in charge_response(fact, response(), book).lines:
        assert line.cost_usd == 0
        assert line.price_source == "own.toml: smollm2-*"


def test_an_entry_for_another_provider_does_not_count(book: LayeredBook) -> None:
    fact = finished(model="smollm2-135m", provider="remote")
    assert charge_response(fact, response(), book).lines[0].cost_usd is None


def test_the_operators_price_counts_before_the_published_one(book: LayeredBook) -> None:
    answer = response(usage=usage(1_000_000, 0, cached=500_000, written=100_000))
    fact = finished(service_tier="priority")
    found = {line.unit: line.cost_usd for line in charge_response(fact, answer, book).lines}
    assert found == {
        "input_tokens": Decimal("0.44"),
        "cached_input_tokens": Decimal("0.15"),
        "cache_write_tokens": Decimal("0.11"),
    }
    standard = charge_response(finished(), answer, book).lines[0]
    assert standard.cost_usd == Decimal("0.06")


def test_reasoning_and_requests_can_have_prices(book: LayeredBook) -> None:
    answer = response(usage=usage(1000, 1000, written=1000, reasoning=250))
    lines = charge_response(finished(model="thinker", provider="x"), answer, book).lines
    assert {line.unit: (line.quantity, line.cost_usd) for line in lines} == {
        "cache_write_tokens": (1000, Decimal("0.002")),
        "output_tokens": (750, Decimal("0.00225")),
        "reasoning_tokens": (250, Decimal("0.001")),
        "requests": (1, Decimal("0.005")),
    }


def test_a_tool_can_have_a_price(book: LayeredBook) -> None:
    [line] = charge_tool_result(tool_result(), FINISHED, book).lines
    assert (line.cost_usd, line.price_source) == (Decimal("0.001"), "own.toml: everything/*")
    [other] = charge_tool_result(tool_result(server_label="files"), FINISHED, book).lines
    assert other.cost_usd is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[[models]]\nmatch = 'a'\n", "models[0].input_per_million_usd: Field required"),
        ("[[tools]]\nmatch='a'\nper_call_usd=-1\n", "tools[0].per_call_usd: Input should be gre"),
        ("[[tools]]\nmatch='a'\nper_call_usd='free'\n", "tools[0].per_call_usd: Input should be"),
        ("[[tools]]\nmatch='a'\nper_call_usd='NaN'\n", "tools[0].per_call_usd: "),
        ("[[tools]]\nmatch='a'\nper_call_usd=1e9\n", "tools[0].per_call_usd: Input should be less"),
        ("[[tools]]\nmatch=''\nper_call_usd=1\n", "tools[0].match: String should have at least"),
        ("[[tool]]\nmatch='a'\nper_call_usd=1\n", "tool: Extra inputs are not permitted"),
        ("models = 3\n", "models: "),
        ("not toml", "Expected '='"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(PriceFileError) as caught:
        FilePrices.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert mistake in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceFileError, match="No such file"):
        FilePrices.load(tmp_path / "missing.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PriceFileError, match="codec"):
        FilePrices.load(tmp_path / "image.toml")


def test_settings_refuse_a_price_file_that_cannot_be_used(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COSTS_PRICES", str(own))
    assert CostsSettings.load().prices == own
    monkeypatch.setenv("COSTS_PRICES", "")
    assert CostsSettings.load().prices is None
    monkeypatch.setenv("COSTS_PRICES", str(tmp_path / "missing.toml"))
    with pytest.raises(SystemExit):
        CostsSettings.load()
    assert "COSTS_PRICES: Value error" in capsys.readouterr().err
