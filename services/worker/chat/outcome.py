"""Usage, finish reasons and errors of chat servers in the words of the Responses API."""

from __future__ import annotations

from typing import Any

from services.worker.chat.turn import TurnStatus

_INCOMPLETE = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "content_filter": "content_filter",
}
_BROKEN = frozenset({"abort", "error", "insufficient_system_resource"})
_TOO_MANY_REQUESTS = 429
_FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR = 400, 500


def server_error(message: str) -> dict[str, str]:
    """Return the `error` of a response that failed through no fault of the client."""
    return {"code": "server_error", "message": message}


def shape_error(error: object) -> dict[str, str]:
    """Return the `error` of a Response for the `error` of a chunk; its codes are a closed list."""
    if not isinstance(error, dict):
        return server_error(str(error))
    message = str(error.get("message") or "The provider failed without saying why.")
    code, kind = error.get("code"), str(error.get("type") or "")
    if code == _TOO_MANY_REQUESTS or "rate_limit" in f"{code} {kind}":
        return {"code": "rate_limit_exceeded", "message": message}
    refused = isinstance(code, int) and _FIRST_CLIENT_ERROR <= code < _FIRST_SERVER_ERROR
    if refused or kind == "invalid_request_error":
        return {"code": "invalid_prompt", "message": message}
    return server_error(message)


def judge(
    finish_reason: str | None, error: dict[str, str] | None
) -> tuple[TurnStatus, dict[str, str] | None, dict[str, str] | None]:
    """Return status, incomplete_details and error of a turn that ended in this way."""
    if error is None and finish_reason is None:
        error = server_error("the stream ended early")
    elif error is None and finish_reason in _BROKEN:
        error = server_error(f"the provider gave up: {finish_reason}")
    if error is not None:
        return "failed", None, error
    reason = _INCOMPLETE.get(finish_reason or "")
    if reason is not None:
        return "incomplete", {"reason": reason}, None
    return "completed", None, None


def shape_usage(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the `usage` of a Response; details a server leaves out count as 0."""
    if not usage:
        return None
    given = usage.get("prompt_tokens_details") or {}
    made = usage.get("completion_tokens_details") or {}
    input_tokens = usage.get("prompt_tokens") or 0
    output_tokens = usage.get("completion_tokens") or 0
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            # DeepSeek reports hits of its cache beside the details.
            "cached_tokens": given.get("cached_tokens")
            or usage.get("prompt_cache_hit_tokens")
            or 0,
            "cache_write_tokens": given.get("cache_write_tokens") or 0,
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": made.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or input_tokens + output_tokens,
    }
