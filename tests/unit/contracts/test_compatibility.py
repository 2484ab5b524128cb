"""What counts as a breaking change of a contract, told with contracts that might come."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field, create_model

from contracts.event import Contract
from contracts.registry import CONTRACTS
from infra.compatibility import breaking_changes, explain
from infra.schemas import message_schema


class Part(BaseModel):
    text: str
    size: int = 0


class Node(BaseModel):
    name: str
    child: Node | None = None


FIELDS: dict[str, Any] = {
    "name": (str, ...),
    "count": (int, Field(ge=0)),
    "note": (str | None, None),
    "kind": (Literal["a", "b"], "a"),
    "only": (Literal["one"], "one"),
    "part": (Part, ...),
    "parts": (list[Part], Field(default_factory=list)),
    "labels": (dict[str, int], Field(default_factory=dict)),
    "free": (dict[str, Any] | None, None),
    "either": (int | str, 0),
    "tree": (Node, ...),
    "at": (AwareDatetime, ...),
}


class Typed(Contract):
    TYPE: ClassVar[str] = "antiphon.sample.changed.v1"


class Renamed(Contract):
    TYPE: ClassVar[str] = "antiphon.sample.altered.v1"


def contract(base: type[Contract] = Typed, **changed: Any) -> dict[str, Any]:
    """Return the schema of the sample contract with some fields changed, those of None left out."""
    fields = {name: field for name, field in {**FIELDS, **changed}.items() if field is not None}
    return message_schema(create_model("Sample", __base__=base, **fields))


BEFORE = contract()


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_is_compatible_with_itself(name: str) -> None:
    schema = message_schema(CONTRACTS[name])
    assert breaking_changes(schema, schema) == []


@pytest.mark.parametrize(
    "added",
    [
        {"extra": (str | None, None)},
        {"extra": (int, 3)},
        {"extra": (list[Part], Field(default_factory=list))},
        {"kind": (Literal["a", "b", "c"], "a")},
        {"only": (Literal["one", "two"], "one")},
        {"part": (create_model("Part", __base__=Part, more=(int, 0)), ...)},
    ],
)
def test_new_optional_fields_and_new_values_are_fine(added: dict[str, Any]) -> None:
    assert breaking_changes(BEFORE, contract(**added)) == []


def test_other_words_in_descriptions_are_fine() -> None:
    after = contract(name=(str, Field(description="What people call it.", title="Name")))
    assert breaking_changes(BEFORE, after) == []


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"name": None}, "`data.name` is gone or has another name"),
        ({"note": None}, "`data.note` is gone or has another name"),
        ({"extra": (str, ...)}, "`data.extra` is new and required, and messages without it exist"),
        ({"note": (str | None, ...)}, "`data.note` is required now"),
        ({"name": (str, "x")}, "`data.name` may be left out now, and readers count on it"),
        ({"name": (int, ...)}, "`data.name` was string and is integer now"),
        ({"note": (str, "")}, "`data.note` was null or string and is string now"),
        ({"name": (str | None, ...)}, "`data.name` was string and is null or string now"),
        ({"count": (float, Field(ge=0))}, "`data.count` was integer and is number now"),
        ({"count": (int, Field(ge=1))}, "`data.count` had the minimum 0 and has 1 now"),
        ({"count": (int, ...)}, "`data.count` had the minimum 0 and has null now"),
        ({"count": (int, Field(ge=0, le=9))}, "`data.count` had the maximum null and has 9 now"),
        ({"name": (str, Field(pattern="^a"))}, '`data.name` had the pattern null and has "^a" now'),
        ({"at": (str, ...)}, '`data.at` had the format "date-time" and has null now'),
        ({"kind": (Literal["a"], "a")}, '`data.kind` may no longer be "b"'),
        ({"kind": (Literal["a", "c"], "a")}, '`data.kind` may no longer be "b"'),
        ({"kind": (str, "a")}, '`data.kind` was one of "a", "b" and may have any value now'),
        ({"name": (Literal["x"], ...)}, '`data.name` had any value and may only be "x" now'),
        ({"kind": (Literal["a", "b"], "b")}, '`data.kind` means "b" when it is left out'),
        ({"part": (Node, ...)}, "`data.part.text` is gone"),
        ({"parts": (list[str], Field(default_factory=list))}, "`data.parts[]` was object"),
        ({"parts": (list[Any], Field(default_factory=list))}, "`data.parts[]` was object"),
        ({"labels": (dict[str, str], Field(default_factory=dict))}, "`data.labels.*` was integer"),
        ({"labels": (dict[str, Any], Field(default_factory=dict))}, "`data.labels` allows other"),
        ({"free": (list[Any] | None, None)}, "`data.free` was null or object"),
        ({"either": (int, 0)}, "`data.either` was integer or string and is integer now"),
    ],
)
def test_a_breaking_change_is_named_in_a_sentence(changed: dict[str, Any], finding: str) -> None:
    findings = breaking_changes(BEFORE, contract(**changed))
    assert any(found.startswith(finding) for found in findings), findings


def test_a_renamed_field_is_both_gone_and_new() -> None:
    findings = breaking_changes(BEFORE, contract(name=None, title=(str, ...)))
    assert findings == [
        "`data.name` is gone or has another name",
        "`data.title` is new and required, and messages without it exist",
    ]


def test_another_type_name_is_breaking() -> None:
    assert breaking_changes(BEFORE, contract(Renamed)) == [
        'the message type was "antiphon.sample.changed.v1" and is "antiphon.sample.altered.v1" now'
    ]


def test_a_change_below_a_recursive_model_is_found_once() -> None:
    class Node(BaseModel):
        name: int
        child: Node | None = None

    Node.model_rebuild(_types_namespace={"Node": Node})
    assert breaking_changes(BEFORE, contract(tree=(Node, ...))) == [
        "`data.tree.name` was string and is integer now"
    ]


def test_alternatives_of_one_type_are_matched_by_what_they_say() -> None:
    one, two = {"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}
    assert breaking_changes({"anyOf": [one, two]}, {"anyOf": [two, one]}) == []
    assert breaking_changes({"anyOf": [one, two]}, {"anyOf": [one, one]}) == [
        "the message has other alternatives of type object now"
    ]
    assert breaking_changes({"anyOf": [one, two]}, {"anyOf": [one]}) != []


def test_closing_an_object_for_unknown_fields_is_breaking() -> None:
    closed = {"type": "object", "additionalProperties": False}
    assert breaking_changes({"type": "object"}, closed) == [
        "the message allows other additionalProperties now"
    ]


def test_an_explanation_says_what_to_do_instead() -> None:
    text = explain("antiphon.sample.changed.v1", ["`data.name` is gone or has another name"])
    assert text.splitlines() == [
        "antiphon.sample.changed.v1: `data.name` is gone or has another name",
        "antiphon.sample.changed.v1: leave the contract as it is and add a new version beside it",
    ]
    assert explain("antiphon.sample.changed.v1", []) == ""
