"""What requests with an `Idempotency-Key` are refused for."""

from __future__ import annotations

from services.intake.errors import ApiError, invalid

HEADER = "Idempotency-Key"


def bad_key() -> ApiError:
    """Return the 400 for a header that can't be a key."""
    return invalid(
        f"Invalid '{HEADER}': expected 1 to 255 printable ASCII characters.",
        param=HEADER,
        code="invalid_idempotency_key",
    )


def _final(message: str, *, code: str) -> ApiError:
    """Return a 409 that stays one; the official clients would try again unless told not to."""
    error = ApiError(409, message, kind="idempotency_error", param=HEADER, code=code)
    error.headers = ((b"x-should-retry", b"false"),)
    return error


def reused() -> ApiError:
    """Return the 409 for a key that another body was sent with."""
    return _final(
        f"This '{HEADER}' was used with another request body. "
        "Use a new key, or send the same body again.",
        code="idempotency_key_reused",
    )


def in_use() -> ApiError:
    """Return the 409 for a key whose first request is not accepted within the bound."""
    return ApiError(
        409,
        f"The first request with this '{HEADER}' is not accepted yet, try again.",
        kind="idempotency_error",
        param=HEADER,
        code="idempotency_key_in_use",
        retry_after_seconds=1,
    )


def forgotten() -> ApiError:
    """Return the 409 for a key whose answer was not to be kept."""
    return _final(
        f"The request with this '{HEADER}' was answered, but with 'store': false, "
        "and its answer is not kept any more.",
        code="idempotent_answer_gone",
    )
