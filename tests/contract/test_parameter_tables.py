"""docs/api.md has a row, and a test, for every word of the `openai` package's create request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, is_typeddict

import pytest
import typing_extensions
from openai.types.responses import custom_tool_param, function_tool_param, response_create_params
from openai.types.responses.response_format_text_config_param import ResponseFormatTextConfigParam
from openai.types.responses.response_includable import ResponseIncludable
from openai.types.responses.response_input_content_param import ResponseInputContentParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.service_tier import ServiceTier
from openai.types.responses.tool_param import ToolParam

from tests.e2e import parameter_items, parameters
from tests.e2e.parameters import Case, Fate, Obeyed, Passed, Refused

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
CASES = [*parameters.all_cases(), *parameter_items.all_cases()]
# Listed by tables of their own.
UNIONS = frozenset({"input", "tools", "tool_choice"})
HEADINGS = {"Include": "Values of include"}
WORDS: dict[type[Fate], str] = {Passed: "passed", Obeyed: "obeyed", Refused: "refused"}


def hints(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind)


def members(union: Any) -> Iterator[Any]:
    """The TypedDicts anywhere in a type."""
    if is_typeddict(union) or hasattr(union, "__total__"):
        yield union
    else:
        for argument in get_args(union):
            yield from members(argument)


def literals(kind: Any) -> Iterator[str]:
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for argument in get_args(kind):
            yield from literals(argument)


def types_of(union: Any) -> set[str]:
    return {name for member in members(union) for name in literals(hints(member).get("type"))}


def parameters_of_the_api() -> set[str]:
    found = {"stream"}
    for name, kind in hints(response_create_params.ResponseCreateParamsBase).items():
        found.add(name)
        if name not in UNIONS:
            found |= {f"{name}.{field}" for member in members(kind) for field in hints(member)}
    return found


def fields(prefix: str, tool: Any) -> set[str]:
    return {f"{prefix}.{field}" for field in hints(tool) if field != "type"}


API: dict[str, set[str]] = {
    "Parameters": parameters_of_the_api(),
    "Formats": types_of(ResponseFormatTextConfigParam),
    "Include": set(get_args(ResponseIncludable)),
    "Items": types_of(ResponseInputItemParam),
    "Content": types_of(ResponseInputContentParam),
    "Tools": types_of(ToolParam)
    | fields("function", function_tool_param.FunctionToolParam)
    | fields("custom", custom_tool_param.CustomToolParam),
    "Tool choice": types_of(response_create_params.ToolChoice)
    | {option for option in literals(response_create_params.ToolChoice) if option},
}


def documented(table: str) -> dict[str, tuple[str, str]]:
    """The fates with each dialect by the names of a table's first column."""
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n### {HEADINGS.get(table, table)}\n")
    rows = re.findall(r"^\| (`.*) \| (.*) \| (.*) \|$", rest.partition("\n#")[0], re.MULTILINE)
    return {
        name: (responses, chat)
        for names, responses, chat in rows
        for name in re.findall(r"`([^`]+)`", names)
    }


@pytest.mark.parametrize("table", API)
def test_every_word_of_the_api_has_a_row(table: str) -> None:
    assert set(documented(table)) == API[table]


@pytest.mark.parametrize("table", API)
def test_every_row_is_proven_by_a_request(table: str) -> None:
    assert {case.name for case in CASES if case.table == table} == API[table]


def test_every_service_tier_of_the_api_is_proven_by_a_request() -> None:
    proven = {case.request["service_tier"] for case in CASES if case.name == "service_tier"}
    assert proven == set(literals(ServiceTier))


def fates(cases: Iterable[Case], dialect: str) -> set[str]:
    told = [case.responses if dialect == "responses" else case.chat for case in cases]
    return {WORDS[type(fate)] for fate in told if fate is not None}


@pytest.mark.parametrize(
    ("table", "name"), [(t, n) for t, names in API.items() for n in sorted(names)]
)
def test_a_row_says_what_its_requests_prove(table: str, name: str) -> None:
    proofs = [case for case in CASES if (case.table, case.name) == (table, name)]
    for dialect, said in zip(("responses", "chat"), documented(table)[name], strict=True):
        told = {word for word in WORDS.values() if re.search(rf"\b{word}\b", said)}
        assert said.split()[0].strip(",:;") in fates(proofs, dialect)
        assert fates(proofs, dialect) <= told
