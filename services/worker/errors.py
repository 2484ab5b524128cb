"""What can go wrong with an upstream, as the worker speaks of it."""

from __future__ import annotations

MALFORMED = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""What reading JSON of another shape than the expected one raises."""


class WorkerError(Exception):
    """The base of the worker's errors."""


class LeaseLostError(WorkerError):
    """Another attempt has the response now, of which this one must say nothing more."""


class UpstreamError(WorkerError):
    """The upstream did not give what was asked.

    `status` is the HTTP status a client of the JSON API gets, `code` and `param` the API's own,
    `retryable` says whether another try or another provider may help, `retry_after_seconds` when.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        code: str | None = None,
        param: str | None = None,
        retryable: bool = True,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds

    @property
    def kind(self) -> str:
        """The `type` of the API's error object."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, object]:
        """Return the error in the API's shape for a JSON client."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response_error(self) -> dict[str, str]:
        """Return the `error` of a failed Response, whose codes are a closed list."""
        if self.status == 429:
            code = "rate_limit_exceeded"
        elif self.status < 500:
            code = "invalid_prompt"
        else:
            code = "server_error"
        return {"code": code, "message": self.message}


class RequestRefusedError(UpstreamError):
    """The request can't be served as it stands, by any provider."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, status=400, code=code, param=param, retryable=False)


class ProviderBusyError(UpstreamError):
    """The provider has as many requests under way as it may have, and none ended in time.

    Another provider may be asked; the same one not again at once.
    """

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(
            message,
            status=503,
            code="provider_busy",
            retryable=False,
            retry_after_seconds=retry_after_seconds,
        )


class ProviderOpenError(UpstreamError):
    """The provider failed so often that it is left alone for a while: its breaker is open."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(
            message,
            status=503,
            code="provider_unavailable",
            retryable=False,
            retry_after_seconds=retry_after_seconds,
        )
