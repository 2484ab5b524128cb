"""Tells whether a JSON Schema can replace another while messages and readers of both are about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset({"title", "description", "examples", "$schema", "$id", "$comment"})
_STRUCTURE = frozenset(
    {
        "type", "properties", "required", "items", "additionalProperties", "anyOf", "oneOf",
        "enum", "const", "default", "definitions", "$defs", "$ref",
    }
)  # fmt: skip
_ADVICE = "leave the contract as it is and add a new version beside it"


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Return one sentence per change that breaks somebody; nothing when `new` may replace `old`.

    Old messages stay on topics, so what was valid must stay valid. Readers are upgraded after
    writers, those of other teams much later, so what becomes valid must not surprise them: they
    ignore new optional fields, and they must expect new values of an enumeration, but nothing else.
    """
    return list(_Comparison(old, new).schemas(old, new, ""))


def explain(name: str, findings: Iterable[str]) -> str:
    """Return the findings about the schema `name`, one a line, and what to do instead."""
    lines = [f"{name}: {finding}" for finding in findings]
    return "\n".join([*lines, f"{name}: {_ADVICE}"]) if lines else ""


class _Comparison:
    """Two documents, whose references are followed into their own definitions."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._compared: set[tuple[int, int]] = set()

    def schemas(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        yield from self._defaults(old, new, path)
        olds = _alternatives(self._old, old)
        news = _alternatives(self._new, new)
        if olds.keys() != news.keys():
            yield f"{_name(path)} was {_types(olds)} and is {_types(news)} now"
            return
        for kind, alternatives in olds.items():
            yield from self._kinds(kind, alternatives, news[kind], path)

    def _kinds(self, kind: str, old: list[Schema], new: list[Schema], path: str) -> Iterator[str]:
        """Compare the alternatives of one type; of several, each must have its like."""
        if len(old) == len(new) == 1:
            yield from self.same_type(old[0], new[0], path)
            return
        missing = sum(not any(self._alike(one, other, path) for other in new) for one in old)
        if missing or len(old) != len(new):
            yield f"{_name(path)} has other alternatives of type {kind} now"

    def _alike(self, old: Schema, new: Schema, path: str) -> bool:
        return not list(_Comparison(self._old, self._new).same_type(old, new, path))

    def same_type(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        """Compare two resolved schemas of one type; those compared before, as in a tree, agree."""
        pair = (id(old), id(new))
        if pair in self._compared:
            return
        self._compared.add(pair)
        yield from _values(old, new, path)
        yield from _constraints(old, new, path)
        yield from self._fields(old, new, path)
        for keyword, suffix in (("items", "[]"), ("additionalProperties", ".*")):
            before, after = _subschema(old, keyword), _subschema(new, keyword)
            if (before is None) != (after is None):
                yield f"{_name(path)} allows other {keyword} now"
            elif before is not None and after is not None:
                yield from self.schemas(before, after, path + suffix)

    def _fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        was_required, is_required = set(old.get("required", ())), set(new.get("required", ()))
        for field in sorted(before.keys() - after.keys()):
            yield f"{_name(path, field)} is gone or has another name"
        for field in sorted(is_required - was_required):
            how = "is required now" if field in before else "is new and required"
            yield f"{_name(path, field)} {how}, and messages without it exist"
        for field in sorted((was_required - is_required) & after.keys()):
            yield f"{_name(path, field)} may be left out now, and readers count on it"
        for field in before:
            if field in after:
                yield from self.schemas(before[field], after[field], f"{path}.{field}")

    def _defaults(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, after = old.get("default"), new.get("default")
        if "default" in old and before != after:
            yield (
                f"{_name(path)} means {json.dumps(after)} when it is left out, "
                f"which meant {json.dumps(before)}"
            )


def _alternatives(document: Schema, schema: Schema) -> dict[str, list[Schema]]:
    """Return the resolved alternatives of a schema by their type, `any` for one that has none."""
    found: dict[str, list[Schema]] = {}
    for resolved in _resolved(document, schema):
        kinds = resolved.get("type") or _type_of_values(resolved)
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            found.setdefault(kind, []).append(resolved)
    return found


def _resolved(document: Schema, schema: Schema) -> Iterator[Schema]:
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices is None:
        yield schema
        return
    for choice in choices:
        yield from _resolved(document, choice)


def _type_of_values(schema: Schema) -> str:
    values = _allowed(schema)
    return "string" if values and all(value.startswith('"') for value in values) else "any"


def _allowed(schema: Schema) -> set[str] | None:
    """Return the values a schema allows as JSON text, nothing when it does not list them."""
    if "const" in schema:
        return {json.dumps(schema["const"])}
    if "enum" in schema:
        return {json.dumps(value) for value in schema["enum"]}
    return None


def _values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = _allowed(old), _allowed(new)
    if path == ".type" and before != after:
        yield f"the message type was {_list(before)} and is {_list(after)} now"
    elif before is None and after is not None:
        yield f"{_name(path)} had any value and may only be {_list(after)} now"
    elif before is not None and after is None:
        yield f"{_name(path)} was one of {_list(before)} and may have any value now"
    elif before is not None and after is not None and before - after:
        yield f"{_name(path)} may no longer be {_list(before - after)}"


def _constraints(old: Schema, new: Schema, path: str) -> Iterator[str]:
    ignored = _ANNOTATIONS | _STRUCTURE
    for keyword in sorted((old.keys() | new.keys()) - ignored):
        if old.get(keyword) != new.get(keyword):
            before, after = (json.dumps(schema.get(keyword)) for schema in (old, new))
            yield f"{_name(path)} had the {keyword} {before} and has {after} now"


def _subschema(schema: Schema, keyword: str) -> Schema | None:
    """Return the schema under a keyword; all and nothing count as a schema that says no more."""
    value = schema.get(keyword)
    if value is False:
        return {"const": "nothing"}
    return value if isinstance(value, Mapping) else None


def _types(alternatives: Mapping[str, object]) -> str:
    return " or ".join(sorted(alternatives))


def _list(values: set[str] | None) -> str:
    return ", ".join(sorted(values)) if values else "anything"


def _name(path: str, field: str = "") -> str:
    full = f"{path}.{field}" if field else path
    return f"`{full.lstrip('.')}`" if full else "the message"
