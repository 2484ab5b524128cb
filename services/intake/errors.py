"""Everything intake refuses, in the error shape of the OpenAI API."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than success; see https://platform.openai.com/docs/guides/error-codes."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> dict[str, object]:
        """Return the API's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid(message: str, *, param: str | None, code: str | None = None) -> ApiError:
    """Return a 400 about one parameter."""
    return ApiError(400, message, param=param, code=code)


def response_not_found(response_id: str) -> ApiError:
    """Return the 404 for a response that does not exist, or is not the caller's."""
    return ApiError(404, f"Response with id '{response_id}' not found.")


def conversation_not_found(conversation_id: str) -> ApiError:
    """Return the 404 for a conversation that does not exist, or is not the caller's."""
    return ApiError(404, f"Conversation with id '{conversation_id}' not found.")


def item_not_found(item_id: str) -> ApiError:
    """Return the 404 for an item that its conversation does not have."""
    return ApiError(404, f"Item with id '{item_id}' not found in this conversation.")


def conversation_locked() -> ApiError:
    """Return the API's refusal of a second response while one of the same conversation runs."""
    return invalid(
        "Another process is currently operating on this conversation. "
        "Please retry in a few seconds.",
        param="conversation",
        code="conversation_locked",
    )


def duplicate_item(item_id: str, *, param: str) -> ApiError:
    """Return the 400 for an item whose id the conversation or the request has already."""
    return invalid(
        f"Duplicate item found with id {item_id}. Remove duplicate items and try again.",
        param=param,
        code="duplicate_item",
    )


def history_too_large(param: str) -> ApiError:
    """Return the 400 for a request after more than this server puts before one."""
    return invalid(
        "The conversation before this request is too large.", param=param, code="history_too_large"
    )


def model_not_found(model: str) -> ApiError:
    """Return the 404 for a model that no provider serves."""
    return ApiError(
        404,
        f"The model `{model}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def unauthorized(message: str) -> ApiError:
    """Return the 401 for a key that is missing, unknown, revoked or expired."""
    return ApiError(401, message, code="invalid_api_key")


def overloaded() -> ApiError:
    """Return the 429 for a request beyond those that may be open here at once."""
    return ApiError(
        429,
        "Too many requests are open on this server.",
        kind="rate_limit_error",
        code="server_overloaded",
        retry_after_seconds=1,
    )


def too_late(response_id: str) -> ApiError:
    """Return the 504 for a response that is not at its end when its client has waited enough."""
    return ApiError(
        504,
        f"The response '{response_id}' takes too long; it goes on and can be retrieved by its id.",
        kind="server_error",
        code="timeout",
    )


def restarting(response_id: str, *, keyed: bool) -> ApiError:
    """Return the 503 for a response that is not at its end when this server must stop.

    It goes on: only with an idempotency key (`keyed`) the same request may be sent again, which
    gives that response. The official packages obey `x-should-retry`.
    """
    error = unavailable(
        f"This server restarts. The response '{response_id}' goes on; if it is stored it can be "
        "retrieved by its id, and a request with an Idempotency-Key can be repeated.",
        retry_after_seconds=1,
    )
    error.headers = ((b"x-should-retry", b"true" if keyed else b"false"),)
    return error


def unavailable(message: str, *, retry_after_seconds: int = 2) -> ApiError:
    """Return the 503 for a request that can't be made durable now."""
    return ApiError(
        503,
        message,
        kind="server_error",
        retry_after_seconds=retry_after_seconds,
        code="service_unavailable",
    )
