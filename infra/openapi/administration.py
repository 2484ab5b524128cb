"""Keys and webhooks: the routes for administrators."""

from __future__ import annotations

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
from services.intake.api.keys import KeyUpdate, NewKey, Rotation
from services.webhooks.domain.events import EVENT_TYPES

_SECONDS = nullable(count(0))
_KEY_FIELDS: dict[str, Schema] = {
    "id": TEXT,
    "status": choice("active", "expired", "revoked"),
    "name": TEXT,
    "prefix": TEXT,
    "project": TEXT,
    "user": nullable(TEXT),
    "scopes": {"type": "array", "items": TEXT},
    "allowed_models": nullable({"type": "array", "items": TEXT}),
    "requests_per_minute": nullable(count(1)),
    "tokens_per_minute": nullable(count(1)),
    "created_at": count(0),
    "expires_at": _SECONDS,
    "rotated_at": _SECONDS,
    "replaced_key_expires_at": _SECONDS,
    "revoked_at": _SECONDS,
}
_KEY = record("api_key", **_KEY_FIELDS)
_SECRET = record("api_key", **_KEY_FIELDS, key=TEXT)
_KEY_ERRORS = (403, 409, 413)
_PROJECT = Parameter("project", TEXT, "another project than the key's own")
_ENDPOINT_FIELDS: dict[str, Schema] = {
    "id": TEXT,
    "created_at": count(0),
    "updated_at": count(0),
    "name": TEXT,
    "url": TEXT,
    "event_types": {"type": "array", "items": choice(*EVENT_TYPES)},
    "signing_secret_hint": TEXT,
    "project": TEXT,
    "responses": TEXT,
    "enabled": {"type": "boolean"},
    "disabled_reason": nullable(TEXT),
    "failures_in_a_row": count(0),
    "paused_until": _SECONDS,
}
_ENDPOINT = record("webhook_endpoint", **_ENDPOINT_FIELDS)
_SIGNED = record("webhook_endpoint", **_ENDPOINT_FIELDS, signing_secret=TEXT)
_WISH: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 200},
        "url": {"type": "string", "format": "uri"},
        "event_types": {"type": "array", "items": choice(*EVENT_TYPES), "minItems": 1},
        "responses": choice("all", "background"),
        "enabled": {"type": "boolean"},
    },
}
_DELIVERY = record(
    "webhook_delivery",
    id=TEXT,
    webhook_endpoint_id=TEXT,
    event_id=TEXT,
    event_type=TEXT,
    response_id=nullable(TEXT),
    status=TEXT,
    attempts=count(0),
    last_attempts={"type": "array", "items": {"type": "object"}},
    next_attempt_at=_SECONDS,
    created_at=count(0),
    finished_at=_SECONDS,
)


def _keys() -> tuple[Operation, ...]:
    one = "/v1/keys/{key_id}"
    return (
        Operation(
            method="get",
            path="/v1/keys",
            tag="keys",
            summary="List the keys, revoked ones included",
            answer=listing(_KEY),
            parameters=(
                *paging(1_000, orders=False),
                Parameter("project", TEXT, "only those of this project"),
            ),
            errors=(403,),
        ),
        Operation(
            method="post",
            path="/v1/keys",
            tag="keys",
            summary="Create a key; the only answer with its secret",
            body=NewKey,
            answer=_SECRET,
            errors=_KEY_ERRORS,
        ),
        Operation(
            method="get",
            path=one,
            tag="keys",
            summary="Read a key's record",
            answer=_KEY,
            errors=(403,),
        ),
        Operation(
            method="post",
            path=one,
            tag="keys",
            summary="Change a key",
            body=KeyUpdate,
            answer=_KEY,
            errors=_KEY_ERRORS,
        ),
        Operation(
            method="delete",
            path=one,
            tag="keys",
            summary="Revoke a key for ever",
            answer=_KEY,
            errors=_KEY_ERRORS,
        ),
        Operation(
            method="post",
            path=one + "/rotate",
            tag="keys",
            summary="Give a key a new secret",
            body=Rotation,
            body_required=False,
            answer=_SECRET,
            errors=_KEY_ERRORS,
        ),
    )


def _webhooks(prefix: str) -> tuple[Operation, ...]:
    one = prefix + "/{endpoint_id}"

    def operation(method: str, path: str, summary: str, answer: Schema, body: object) -> Operation:
        listed = path.endswith("deliveries") or (method == "get" and path == prefix)
        return Operation(
            method=method,
            path=path,
            tag="webhooks",
            summary=summary,
            answer=answer,
            body=body,
            body_required=body is not None and path in (prefix, one),
            parameters=(*(paging(100, orders=False) if listed else ()), _PROJECT),
            errors=(403, 409, 413, 422, 502),
        )

    keep = {"keep_old_secret_active_for_24_hours": {"type": "boolean"}}
    new = {**_WISH, "required": ["url"]}
    rotation = {"type": "object", "additionalProperties": False, "properties": keep}
    sample = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"event_type": choice(*EVENT_TYPES)},
    }
    tested = record(
        "webhook_endpoint.test",
        webhook_endpoint_id=TEXT,
        event_type=TEXT,
        status_code=count(100, 599),
        success={"const": True},
    )
    return (
        operation("get", prefix, "List the endpoints", listing(_ENDPOINT), None),
        operation("post", prefix, "Create an endpoint; shows its secret", _SIGNED, new),
        operation("get", one, "Read an endpoint", _ENDPOINT, None),
        operation("post", one, "Change an endpoint", _ENDPOINT, _WISH),
        operation("delete", one, "Delete an endpoint", deleted("webhook_endpoint.deleted"), None),
        operation("post", one + "/rotate_secret", "Give it a new secret", _SIGNED, rotation),
        operation("post", one + "/test", "Deliver a sample event now", tested, sample),
        operation("get", one + "/deliveries", "List deliveries", listing(_DELIVERY), None),
        operation(
            "post",
            one + "/deliveries/{delivery_id}/retry",
            "Deliver an event again",
            _DELIVERY,
            None,
        ),
    )


ADMINISTRATION = (
    *_keys(),
    *_webhooks("/v1/webhook_endpoints"),
    *_webhooks("/v1/webhooks"),
    Operation(
        method="get",
        path="/v1/webhook_event_types",
        tag="webhooks",
        summary="List the events that endpoints can be told of",
        answer=record("list", data={"type": "array", "items": TEXT}),
        parameters=(_PROJECT,),
        errors=(403,),
    ),
)
