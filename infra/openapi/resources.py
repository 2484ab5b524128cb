"""Models, files, artifacts, costs, MCP servers, and what machines ask about the server."""

from __future__ import annotations

from openai.types import Model

from infra.openapi.operation import (
    TEXT,
    Operation,
    Parameter,
    Schema,
    choice,
    count,
    deleted,
    listing,
    nullable,
    paging,
    record,
)

_ARTIFACT: Schema = record(
    "artifact",
    id=TEXT,
    response_id=TEXT,
    item_id=TEXT,
    kind=choice("image", "file", "audio"),
    filename=nullable(TEXT),
    content_type=TEXT,
    size_bytes=count(0),
    sha256=TEXT,
    created_at=count(0),
)
_SUMS = {
    "cost_usd": nullable(TEXT),
    "unpriced_lines": count(0),
    "estimated_lines": count(0),
    "quantities": {"type": "object"},
}
_MONEY: Schema = {"type": "object", "properties": _SUMS, "required": list(_SUMS)}
_GROUP: Schema = record("costs.group", group={"type": "object"}, **_SUMS)
_COSTS: Schema = record(
    "list",
    data={"type": "array", "items": _GROUP},
    total=_MONEY,
    has_more={"type": "boolean"},
    next_page=nullable(TEXT),
)
_LINE_TEXTS = ("id", "response_id", "project", "key", "unit", "occurred_at")
_LINE_MAYBE = (
    *("user", "chat", "provider", "model", "tool", "unit_price_usd", "cost_usd"),
    *("unpriced_reason", "price_source", "service_tier"),
)
_LINE: Schema = record(
    "costs.line",
    **dict.fromkeys(_LINE_TEXTS, TEXT),
    **{name: nullable(TEXT) for name in _LINE_MAYBE},
    quantity={"type": ["number", "string"]},
    estimated={"type": "boolean"},
)
_COST_FILTERS = tuple(
    Parameter(name, TEXT, "only lines with this value")
    for name in ("response_id", "model", "key", "chat", "user", "provider", "tool", "project")
)
_GROUP_BY = "model, key, chat, day, project, user, provider, tool or service_tier, by commas"
_SERVER: Schema = record(
    "mcp.server",
    server_label=TEXT,
    transport=TEXT,
    status=choice("ready", "unavailable"),
    error=nullable(TEXT),
    tools={"type": "array", "items": {"type": "object"}},
)
_PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
# The vendor's own model does not know the purpose `evals` that its uploads may have.
_FILE: Schema = record(
    "file",
    id=TEXT,
    bytes=count(0),
    created_at=count(0),
    expires_at=nullable(count(0)),
    filename=TEXT,
    purpose=choice(*_PURPOSES),
    status=choice("uploaded", "processed", "error"),
    status_details=nullable(TEXT),
)
_UPLOAD: Schema = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": choice(*_PURPOSES),
        "expires_after[anchor]": choice("created_at"),
        "expires_after[seconds]": count(3_600, 2_592_000),
    },
}
_ANY = "*/*"
_CHECKS: Schema = {"type": "object", "required": ["status", "checks"]}

RESOURCES = (
    Operation(
        method="get",
        path="/v1/models",
        tag="models",
        summary="List the models that the key may ask",
        answer=record(
            "list", data={"type": "array", "items": {"$ref": "#/components/schemas/Model"}}
        ),
    ),
    Operation(
        method="get",
        path="/v1/models/{model}",
        tag="models",
        summary="Read one model",
        answer=Model,
    ),
    Operation(
        method="get",
        path="/v1/files",
        tag="files",
        summary="List the files of the project",
        answer=listing(_FILE),
        parameters=(*paging(10_000), Parameter("purpose", TEXT, "only files for this")),
    ),
    Operation(
        method="post",
        path="/v1/files",
        tag="files",
        summary="Upload a file",
        body=_UPLOAD,
        body_media="multipart/form-data",
        answer=_FILE,
        errors=(408, 413, 415),
    ),
    Operation(
        method="get",
        path="/v1/files/{file_id}",
        tag="files",
        summary="Read what is known of a file",
        answer=_FILE,
    ),
    Operation(
        method="delete",
        path="/v1/files/{file_id}",
        tag="files",
        summary="Delete a file",
        answer=deleted("file"),
    ),
    Operation(
        method="get",
        path="/v1/files/{file_id}/content",
        tag="files",
        summary="Read a file",
        answer=None,
        media=(_ANY,),
        statuses=(200, 206),
        errors=(416, 500),
    ),
    Operation(
        method="get",
        path="/v1/artifacts",
        tag="artifacts",
        summary="List the files that responses made",
        answer=listing(_ARTIFACT),
        parameters=(
            *paging(100),
            Parameter("response_id", TEXT, "only those of this response"),
            Parameter("kind", choice("image", "file", "audio"), "only those of this kind"),
        ),
    ),
    Operation(
        method="get",
        path="/v1/artifacts/{artifact_id}",
        tag="artifacts",
        summary="Read what is known of an artifact",
        answer=_ARTIFACT,
    ),
    Operation(
        method="get",
        path="/v1/artifacts/{artifact_id}/content",
        tag="artifacts",
        summary="Read an artifact",
        answer=None,
        media=(_ANY,),
        statuses=(200, 206),
        errors=(416, 500),
    ),
    Operation(
        method="get",
        path="/v1/costs",
        tag="costs",
        summary="Sum up what was spent",
        answer=_COSTS,
        parameters=(
            Parameter("group_by", TEXT, _GROUP_BY),
            Parameter("start", TEXT, "from this date, time or second"),
            Parameter("end", TEXT, "before this date, time or second"),
            Parameter("limit", count(1, 1_000), "groups per page, default 100"),
            Parameter("page", TEXT, "`next_page` of the page before"),
            *_COST_FILTERS,
        ),
        errors=(403,),
    ),
    Operation(
        method="get",
        path="/v1/costs/lines",
        tag="costs",
        summary="List the cost lines of a response",
        answer=listing(_LINE),
        parameters=(
            Parameter("response_id", TEXT, "whose lines"),
            *paging(1_000, orders=False),
        ),
        errors=(403,),
    ),
    Operation(
        method="get",
        path="/v1/mcp/servers",
        tag="mcp",
        summary="List the MCP servers and their tools",
        answer=record("list", data={"type": "array", "items": _SERVER}),
    ),
    Operation(
        method="get",
        path="/healthz",
        tag="server",
        summary="Whether the process lives",
        answer=_CHECKS,
        statuses=(200, 503),
        public=True,
    ),
    Operation(
        method="get",
        path="/readyz",
        tag="server",
        summary="Whether it can do its work",
        answer=_CHECKS,
        statuses=(200, 503),
        public=True,
    ),
    Operation(
        method="get",
        path="/metrics",
        tag="server",
        summary="Figures for Prometheus",
        answer=None,
        media=("text/plain",),
        public=True,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        tag="server",
        summary="This document",
        answer={"type": "object", "required": ["openapi", "paths"]},
        public=True,
    ),
)
