"""What the document says about one route, and short ways to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
JSON = "application/json"
SSE = "text/event-stream"
TEXT: Schema = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query or in a header; those of the path are read from it."""

    name: str
    schema: Schema
    description: str
    where: str = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    `body` and `answer` are pydantic models, schemas, or None for none. `media` are the content
    types of `statuses`, those of success; `errors` are the statuses beside those that every route
    can give. `public` routes want no key.
    """

    method: str
    path: str
    tag: str
    summary: str
    answer: object
    body: object = None
    body_media: str = JSON
    body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    media: tuple[str, ...] = (JSON,)
    statuses: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    public: bool = False

    @property
    def id(self) -> str:
        """A name that no other operation has."""
        words = [part.strip("{}") for part in self.path.split("/") if part and part != "v1"]
        return "_".join([self.method, *words]).replace(".", "_").replace("-", "_")


def choice(*values: str) -> Schema:
    """Return the schema of one of some texts."""
    return {"type": "string", "enum": list(values)}


def count(least: int, most: int | None = None) -> Schema:
    """Return the schema of an integer between two bounds."""
    schema: Schema = {"type": "integer", "minimum": least}
    return schema if most is None else {**schema, "maximum": most}


def nullable(schema: Schema) -> Schema:
    """Return the schema of the same or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(kind: str, /, **fields: Schema) -> Schema:
    """Return the schema of an object of the API with its `object` tag; no field is ever missing."""
    properties = {"object": {"const": kind}, **fields}
    return {"type": "object", "properties": properties, "required": list(properties)}


def listing(item: Schema) -> Schema:
    """Return the schema of a page of a list, as the API writes it."""
    return record(
        "list",
        data={"type": "array", "items": item},
        first_id=nullable(TEXT),
        last_id=nullable(TEXT),
        has_more={"type": "boolean"},
    )


def deleted(kind: str) -> Schema:
    """Return the schema of what tells that something is gone."""
    return record(kind, id=TEXT, deleted={"const": True})


def paging(most: int, *, orders: bool = True) -> tuple[Parameter, ...]:
    """Return the parameters of a paged list."""
    found = (
        Parameter("limit", count(1, most), "how many at most"),
        Parameter("after", TEXT, "the id of the last one of the page before"),
    )
    order = Parameter("order", choice("asc", "desc"), "by the time of creation, default `desc`")
    return (*found, order) if orders else found
