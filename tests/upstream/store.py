"""Responses that the server keeps, so that they can be read, continued, cancelled and deleted."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.upstream.answers import Json
from tests.upstream.dialogue import Dialogue
from tests.upstream.language import Directives
from tests.upstream.refusals import invalid, unknown_response

_MAX_STORED = 5_000
_IN_PROGRESS: Json = {"output": [], "usage": None, "completed_at": None, "error": None}


@dataclass
class Stored:
    """A response with its events and the items that led to it.

    `pending` are the states that reads of a background response still have to pass, one after the
    other once it is no longer `held`. `asked` are what it was asked with, for later streams.
    """

    response: Json
    events: list[Json]
    items: list[Json]
    pending: list[str] = field(default_factory=list)
    held: Callable[[], bool] = lambda: False
    asked: tuple[Dialogue, Directives] | None = None

    def now(self) -> Json:
        """The response in its present state."""
        if not self.pending:
            return self.response
        return self.response | _IN_PROGRESS | {"status": self.pending[0]}


class Store:
    """The newest responses, by id."""

    def __init__(self) -> None:
        self._responses: OrderedDict[str, Stored] = OrderedDict()
        self._by_key: dict[str, str] = {}

    def put(self, stored: Stored, *, key: str | None = None) -> None:
        """Keep a response, at the expense of the oldest one when there are too many.

        `key` is the idempotency key it was asked for with.
        """
        self._responses[stored.response["id"]] = stored
        if key is not None:
            self._by_key[key] = stored.response["id"]
        if len(self._responses) > _MAX_STORED:
            self._responses.popitem(last=False)

    def of_key(self, key: str | None) -> Stored | None:
        """The response that was asked for with that idempotency key, None for none."""
        return self._responses.get(self._by_key.get(key or "", ""))

    def get(self, response_id: str) -> Stored:
        """The response of that id. Raises RefusalError (404)."""
        if response_id not in self._responses:
            raise unknown_response(response_id)
        return self._responses[response_id]

    def read(self, response_id: str) -> Json:
        """The response as of now; a background one moves on by one state with every read."""
        stored = self.get(response_id)
        if stored.pending and not (stored.held() and len(stored.pending) == 1):
            stored.pending.pop(0)
        return stored.now()

    def history(self, response_id: str | None) -> list[Json]:
        """All items up to and including that response. Raises RefusalError (400)."""
        if response_id is None:
            return []
        if response_id not in self._responses:
            message = f"Previous response with id '{response_id}' not found."
            code = "previous_response_not_found"
            raise invalid(message, code=code, param="previous_response_id")
        stored = self._responses[response_id]
        return [*stored.items, *stored.response["output"]]

    def cancel(self, response_id: str) -> Json:
        """Cancel a background response that is not finished. Raises RefusalError (404, 400)."""
        stored = self.get(response_id)
        if not stored.response.get("background"):
            raise invalid("Only responses created with background=true can be cancelled.")
        if stored.response["status"] == "cancelled":
            return stored.response
        if not stored.pending:
            raise invalid("Cannot cancel a completed response.")
        stored.response = stored.now() | {"status": "cancelled"}
        stored.pending.clear()
        return stored.response

    def delete(self, response_id: str) -> Json:
        """Forget a response. Raises RefusalError (404)."""
        self.get(response_id)
        del self._responses[response_id]
        return {"id": response_id, "object": "response", "deleted": True}

    def clear(self) -> None:
        """Forget every response."""
        self._responses.clear()
        self._by_key.clear()
