"""Puts the operations together to one OpenAPI 3.1 document."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from infra.openapi.administration import ADMINISTRATION
from infra.openapi.operation import JSON, TEXT, Operation, Parameter, Schema, nullable
from infra.openapi.resources import RESOURCES
from infra.openapi.talk import TALK

FILE = Path("services/intake/api/openapi.json")
OPERATIONS: tuple[Operation, ...] = (*TALK, *RESOURCES, *ADMINISTRATION)
_REF = "#/components/schemas/{model}"
_IN_PATH = re.compile(r"{(\w+)}")
_ALWAYS = (400, 401, 404, 503)
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": nullable(TEXT),
                "code": nullable(TEXT),
            },
        }
    },
}


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """Return the document; raises `ValueError` when two operations are the same."""
    schemas: dict[str, Schema] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        if operation.method in methods:
            raise ValueError(f"{operation.method} {operation.path} stands there twice")
        methods[operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Antiphon",
            "version": "1",
            "description": "The OpenAI Responses API on any model, and what belongs to it.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def text() -> str:
    """Return the document as it is committed."""
    return json.dumps(document(), indent=1) + "\n"


def _operation(operation: Operation, schemas: dict[str, Schema]) -> dict[str, Any]:
    answer = _schema(operation.answer, schemas)
    told: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            **{
                str(status): _answer(
                    status, {media: _content(media, answer) for media in operation.media}
                )
                for status in operation.statuses
            },
            **_errors(operation),
        },
    }
    parameters = [
        *(Parameter(name, TEXT, "its id", "path") for name in _IN_PATH.findall(operation.path)),
        *operation.parameters,
    ]
    if parameters:
        told["parameters"] = [_parameter(parameter) for parameter in parameters]
    if operation.body is not None:
        schema = _schema(operation.body, schemas)
        told["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_media: {"schema": schema}},
        }
    if operation.public:
        told["security"] = []
    return told


def _content(media: str, answer: Schema) -> dict[str, Any]:
    return {"schema": answer} if media == JSON else {}


def _answer(status: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": content}


def _errors(operation: Operation) -> dict[str, Any]:
    if operation.public:
        return {}
    content = {JSON: {"schema": {"$ref": _REF.format(model="Error")}}}
    statuses = sorted({*_ALWAYS, *operation.errors})
    return {str(status): _answer(status, content) for status in statuses}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _schema(wanted: Any, schemas: dict[str, Schema]) -> Schema:
    """Return the schema of a type, or the schema given; what it refers to goes to `schemas`."""
    if wanted is None or isinstance(wanted, dict):
        return wanted or {}
    schema: Schema = _lean(TypeAdapter(wanted).json_schema(ref_template=_REF))
    name = getattr(wanted, "__name__", None)
    schema = _with_own_names(schema, str(name), schemas)
    schemas.update(schema.pop("$defs", {}))
    if name is None:
        return schema
    if schemas.get(name, schema) != schema:
        name += "Object"
    schemas[name] = schema
    return {"$ref": _REF.format(model=name)}


def _with_own_names(schema: Schema, owner: str, schemas: dict[str, Schema]) -> Schema:
    """Rename what the schema defines otherwise than another one by the same name."""
    defined = schema.get("$defs", {})
    taken = [name for name in defined if schemas.get(name, defined[name]) != defined[name]]
    written = json.dumps(schema)
    for name in taken:
        written = written.replace(
            f'"{_REF.format(model=name)}"', f'"{_REF.format(model=owner + name)}"'
        )
        written = written.replace(f'"{name}": {{', f'"{owner}{name}": {{')
    return dict(json.loads(written))


def _lean(schema: Any) -> Any:
    """Return a schema without titles and descriptions: names and types say it all."""
    if isinstance(schema, list):
        return [_lean(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _lean(part)
        for name, part in schema.items()
        if name not in ("title", "description") or not isinstance(part, str)
    }
