"""The table of who may do what: one row per route, and rows for ids that travel in a body.

To add a route, add a `Row` to `TABLE`; `test_access.py` fails while one is missing. A row says:

- `route`: method and path as the application names them, such as `GET /v1/things/{thing}`.
- `thing`: what must exist for it, a name in `MAKERS` of `access_things.py`. Its maker returns a
  value for each parameter of the path, and whatever `body` wants to know.
- `body`: the JSON to send, from what was made; `query`: what follows the `?`.
- `own`, `other`, `root`, `manager`: the status for an ordinary key of the project that the thing
  belongs to (and for a colleague's), for one of another project, for the installation's admin
  key, whose own project is a third one, and for a key with the scope `admin` in the thing's
  project. `root` is `other` and `manager` is `own` where they are not said. A status of an id that
  is another project's must be that of an id that nobody has; 403 is only for whole areas.
- `public`: nobody needs a key. Else no key, a wrong one, a revoked and an expired one get 401.
- `variant`: a word to tell rows of one route apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.e2e.parts import DIALECTS

MODEL = DIALECTS["responses"]
Made = dict[str, str]


def _nothing(_: Made) -> Any:
    return None


@dataclass(frozen=True)
class Row:
    """What each kind of caller gets from one route."""

    route: str
    thing: str = ""
    body: Callable[[Made], Any] = _nothing
    query: str = ""
    own: int = 200
    other: int = 200
    root: int | None = None
    manager: int | None = None
    public: bool = False
    variant: str = ""

    @property
    def method(self) -> str:
        """The method, `WEBSOCKET` for one."""
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        """The path with its parameters."""
        return self.route.partition(" ")[2]

    def __str__(self) -> str:
        """Return the name of its test."""
        return f"{self.route} {self.variant}".strip()


def _ask(**fields: Any) -> Callable[[Made], Any]:
    return lambda made: {
        "model": MODEL,
        "input": "say: hi",
        **{name: made.get(value, value) for name, value in fields.items()},
    }


def _file(made: Made) -> Any:
    part = {"type": "input_file", "file_id": made["file"]}
    return {"model": MODEL, "input": [{"role": "user", "content": [part]}]}


def _message(_: Made) -> Any:
    return {"items": [{"type": "message", "role": "user", "content": "hi"}]}


def _hook(_: Made) -> Any:
    return {"name": "hook", "url": "https://example.com/hook", "event_types": ["response.failed"]}


def _failed(_: Made) -> Any:
    return {"event_type": "response.failed"}


RESPONSE = "/v1/responses/{response_id}"
CONVERSATION = "/v1/conversations/{conversation_id}"


def _for_admins(row: Row, *, root: int = 200, manager: int = 200) -> Row:
    """Return the row of an area that ordinary keys may not enter."""
    return replace(row, own=403, other=403, root=root, manager=manager)


def _webhooks(prefix: str) -> list[Row]:
    """Return the rows of webhook endpoints: administrators manage those of their project."""
    one = prefix + "/{endpoint}"
    deliveries = one + "/deliveries"
    return [
        _for_admins(Row(f"GET {prefix}")),
        _for_admins(Row(f"POST {prefix}", body=_hook)),
        _for_admins(Row(f"GET {one}", "endpoint"), root=404),
        _for_admins(Row(f"POST {one}", "endpoint", lambda _: {"name": "new"}), root=404),
        _for_admins(Row(f"DELETE {one}", "endpoint"), root=404),
        _for_admins(Row(f"POST {one}/rotate_secret", "endpoint", lambda _: {}), root=404),
        # Nobody is at the address of the endpoint.
        _for_admins(Row(f"POST {one}/test", "endpoint", _failed), root=404, manager=400),
        _for_admins(Row(f"GET {deliveries}", "endpoint"), root=404),
        # Nothing was delivered yet.
        _for_admins(
            Row(f"POST {deliveries}/{{delivery}}/retry", "endpoint"), root=404, manager=404
        ),
    ]


TABLE = [
    *(Row(f"GET {path}", public=True) for path in ("/healthz", "/readyz", "/metrics")),
    Row("GET /openapi.json", public=True),
    Row("POST /v1/responses", body=_ask()),
    Row("POST /v1/responses", body=_ask(stream=True), variant="stream"),
    Row("POST /v1/responses", body=_ask(background=True), variant="background"),
    Row(
        "POST /v1/responses",
        "response",
        _ask(previous_response_id="response_id"),
        other=400,
        variant="after another",
    ),
    Row(
        "POST /v1/responses",
        "conversation",
        _ask(conversation="conversation_id"),
        other=404,
        variant="in a conversation",
    ),
    Row("POST /v1/responses", "file", _file, other=404, variant="with a file"),
    Row("WEBSOCKET /v1/responses", body=_ask()),
    Row(
        "WEBSOCKET /v1/responses",
        "response",
        _ask(previous_response_id="response_id"),
        other=400,
        variant="after another",
    ),
    Row(
        "WEBSOCKET /v1/responses",
        "conversation",
        _ask(conversation="conversation_id"),
        other=404,
        variant="in a conversation",
    ),
    Row("POST /v1/responses/input_tokens", body=_ask()),
    Row(
        "POST /v1/responses/input_tokens",
        "response",
        _ask(previous_response_id="response_id"),
        other=400,
        variant="after another",
    ),
    Row(
        "POST /v1/responses/input_tokens",
        "conversation",
        _ask(conversation="conversation_id"),
        other=404,
        variant="in a conversation",
    ),
    Row("POST /v1/responses/compact", body=_ask()),
    Row(
        "POST /v1/responses/compact",
        "response",
        _ask(previous_response_id="response_id"),
        other=400,
        variant="after another",
    ),
    Row(f"GET {RESPONSE}", "response", other=404),
    Row(f"GET {RESPONSE}", "stream", query="stream=true", other=404, variant="as a stream"),
    Row(f"DELETE {RESPONSE}", "response", other=404),
    Row(f"POST {RESPONSE}/cancel", "background", other=404),
    Row(f"GET {RESPONSE}/input_items", "response", other=404),
    Row("POST /v1/conversations", body=lambda _: {}),
    Row(f"GET {CONVERSATION}", "conversation", other=404),
    Row(f"POST {CONVERSATION}", "conversation", lambda _: {"metadata": {"a": "b"}}, other=404),
    Row(f"DELETE {CONVERSATION}", "conversation", other=404),
    Row(f"POST {CONVERSATION}/items", "conversation", _message, other=404),
    Row(f"GET {CONVERSATION}/items", "conversation", other=404),
    Row(f"GET {CONVERSATION}/items/{{item_id}}", "conversation", other=404),
    Row(f"DELETE {CONVERSATION}/items/{{item_id}}", "conversation", other=404),
    Row("GET /v1/models"),
    Row("GET /v1/models/{model}", "model"),
    _for_admins(Row("GET /v1/keys", "key")),
    _for_admins(Row("POST /v1/keys", body=lambda _: {"name": "new"})),
    _for_admins(Row("GET /v1/keys/{key_id}", "key")),
    _for_admins(Row("POST /v1/keys/{key_id}", "key", lambda _: {"name": "changed"})),
    _for_admins(Row("POST /v1/keys/{key_id}/rotate", "key", lambda _: {})),
    _for_admins(Row("DELETE /v1/keys/{key_id}", "key")),
    # Administrators see the artifacts and the costs of all projects, as they see all keys.
    Row("GET /v1/artifacts", "artifact"),
    Row("GET /v1/artifacts/{artifact}", "artifact", other=404, root=200),
    Row("GET /v1/artifacts/{artifact}/content", "artifact", other=404, root=200),
    Row("GET /v1/costs", "response"),
    Row("GET /v1/costs/lines", "costs", query="response_id={response_id}"),
    Row("GET /v1/mcp/servers"),
    Row("GET /v1/files", "file"),
    Row("POST /v1/files", own=400, other=400),
    Row("GET /v1/files/{file}", "file", other=404),
    Row("GET /v1/files/{file}/content", "file", other=404),
    Row("DELETE /v1/files/{file}", "file", other=404),
    _for_admins(Row("GET /v1/webhook_event_types")),
    *_webhooks("/v1/webhook_endpoints"),
    *_webhooks("/v1/webhooks"),
]
SEE_ALL = ("/v1/keys", "/v1/artifacts", "/v1/costs")
"""Where administrators see what other projects have."""
