"""Error answers of the API: status, headers and the body in the API's own shape."""

import orjson
from aiohttp import web

from tests.upstream.answers import Json

_INVALID = "invalid_request_error"


class RefusalError(Exception):
    """A request answered with an error status instead of a response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = _INVALID,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type_
        self.code = code
        self.param = param
        self.headers: dict[str, str] = {}

    def body(self) -> Json:
        """The error object, also used for errors within a stream of chat chunks."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> web.Response:
        """The HTTP answer that carries this refusal."""
        return web.Response(
            status=self.status,
            headers=self.headers,
            body=orjson.dumps(self.body()),
            content_type="application/json",
        )


class ProxyError(RefusalError):
    """An error page of a proxy in between: HTML, not the API's shape."""

    def response(self) -> web.Response:
        page = f"<html><body><h1>{self.status} {self.message}</h1></body></html>"
        return web.Response(status=self.status, text=page, content_type="text/html")


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> RefusalError:
    """A 400 of the API."""
    return RefusalError(400, message, code=code, param=param)


def unknown_model(model: str) -> RefusalError:
    """The 404 for a model that does not exist."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return RefusalError(404, message, code="model_not_found", param="model")


def unknown_response(response_id: str) -> RefusalError:
    """The 404 for a response that is not stored."""
    return RefusalError(404, f"Response with id '{response_id}' not found.", param="id")


def server_error(code: str, message: str) -> RefusalError:
    """The 500 for an answer that failed."""
    return RefusalError(500, message, type_="server_error", code=code)


def wrong_key() -> RefusalError:
    """The 401 for a missing or wrong API key."""
    return RefusalError(401, "Incorrect API key provided.", code="invalid_api_key")


def _limited(retry_after_s: float | None) -> RefusalError:
    refusal = RefusalError(
        429,
        "Rate limit reached for requests. Please try again later.",
        type_="requests",
        code="rate_limit_exceeded",
    )
    delay = 1.0 if retry_after_s is None else retry_after_s
    refusal.headers = {
        "retry-after": f"{delay:g}",
        "retry-after-ms": f"{delay * 1000:g}",
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{delay:g}s",
    }
    return refusal


def by_name(name: str, argument: float | None, model: str) -> RefusalError | None:
    """The refusal of a fault name such as `429`, or None when the name is not a refusal.

    `argument` is the retry-after in seconds, which 429 sends by default and 503 on demand.
    """
    match name:
        case "400":
            return invalid("Invalid value: 'scripted'.", code="invalid_value", param="input")
        case "context":
            message = "Your input exceeds the context window of this model."
            return invalid(message, code="context_length_exceeded", param="input")
        case "401":
            return wrong_key()
        case "403":
            message = "You are not allowed to sample from this model."
            return RefusalError(403, message, code="permission_denied")
        case "404":
            return unknown_model(model)
        case "429":
            return _limited(argument)
        case "quota":
            message = "You exceeded your current quota, please check your plan and billing details."
            return RefusalError(429, message, type_="insufficient_quota", code="insufficient_quota")
        case "500":
            message = "The server had an error while processing your request."
            return RefusalError(500, message, type_="server_error", code="server_error")
        case "502" | "504":
            return ProxyError(int(name), "Bad Gateway" if name == "502" else "Gateway Time-out")
        case "503":
            message = "The engine is currently overloaded, please try again later."
            refusal = RefusalError(503, message, type_="server_error", code="overloaded")
            if argument is not None:
                refusal.headers = {"retry-after": f"{argument:g}"}
            return refusal
        case _:
            return None
