"""One public origin: requests for other services' resources go to their owners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from yarl import URL

from services.intake.admission.keys import ApiKeys
from services.intake.api.create import ClientGoneError, read_body
from services.intake.clients import HttpClients
from services.intake.errors import ApiError, unavailable

_BODY_BYTES = 1024 * 1024
_METHODS = ["GET", "HEAD", "POST", "DELETE"]
_PASSED = frozenset({"accept", "content-type", "range", "if-none-match", "if-range"})
_UPLOADS = frozenset({("POST", "/v1/files")})
_DOTS = frozenset({".", ".."})
_DROPPED = frozenset({"connection", "transfer-encoding", "keep-alive", "server", "date"})


class Forwarder:
    """Forwards below a prefix; the owner learns who asks and trusts intake's word for it."""

    def __init__(self, clients: HttpClients, keys: ApiKeys, *, internal_token: str) -> None:
        self._clients = clients
        self._keys = keys
        self._internal_token = internal_token

    def routes(self, owners: dict[str, str | None]) -> list[BaseRoute]:
        """Return routes for each prefix such as `/v1/costs`; an owner's base URL may be unknown."""
        found: list[BaseRoute] = []
        for prefix, base_url in owners.items():
            handler = self._handler(base_url)
            found.append(Route(prefix, handler, methods=_METHODS))
            found.append(Route(prefix + "/{rest:path}", handler, methods=_METHODS))
        return found

    def _handler(self, base_url: str | None) -> Callable[[Request], Awaitable[Response]]:
        async def forward(request: Request) -> Response:
            key = self._keys.authenticate(request.headers.get("authorization", ""))
            path = request.scope["path"]
            # The owner has more than what is forwarded: a path must not climb out of its prefix.
            if base_url is None or not _DOTS.isdisjoint(path.split("/")):
                raise ApiError(404, f"Invalid URL ({request.method} {path})", code="unknown_url")
            headers: CIMultiDict[str] = CIMultiDict(
                (name, value) for name, value in request.headers.items() if name in _PASSED
            )
            # Compressed bytes would be unpacked on the way but still be announced as compressed.
            headers["accept-encoding"] = "identity"
            headers["authorization"] = f"Bearer {self._internal_token}"
            headers["x-antiphon-key-id"] = key.key_id
            headers["x-antiphon-project"] = key.project
            headers["x-antiphon-scopes"] = " ".join(key.scopes)
            upload = _upload(request)
            if upload is not None and "content-length" in request.headers:
                # An owner can refuse an upload that is too large before it is sent.
                headers["content-length"] = request.headers["content-length"]
            body: bytes | Upload = upload or await read_body(
                request.scope, request.receive, limit=_BODY_BYTES
            )
            query = request.scope["query_string"].decode("latin-1")
            target = base_url.rstrip("/") + quote(path) + (f"?{query}" if query else "")
            url = URL(target, encoded=True)
            try:
                answer = await self._clients.forward(request.method, url, headers, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                if upload is not None and upload.broken:
                    raise ClientGoneError from error
                raise unavailable("The owner of this resource does not answer.") from error
            return _Relay(answer, upload)

        return forward


class Upload:
    """A body on its way to the owner: its pieces, as fast as the owner takes them."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self.broken = False
        self.whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces; raises `ClientGoneError` when the client hangs up before the end."""
        while not self.whole:
            message = await self._receive()
            if message["type"] != "http.request":
                self.broken = True
                raise ClientGoneError
            self.whole = not message.get("more_body")
            if piece := message.get("body"):
                yield piece


def _upload(request: Request) -> Upload | None:
    """Return the body of an upload, None for a request whose body is small."""
    if (request.method, request.scope["path"]) not in _UPLOADS:
        return None
    return Upload(request)


class _Relay(StreamingResponse):
    """An owner's answer on its way to the client."""

    def __init__(self, answer: aiohttp.ClientResponse, upload: Upload | None) -> None:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED}
        super().__init__(answer.content.iter_any(), status_code=answer.status, headers=kept)
        self._answer = answer
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and let its connection go however that ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A client that hangs up leaves the rest unread, a refused upload the rest unsent: that
            # connection can't be used again.
            if self._answer.content.at_eof() and (self._upload is None or self._upload.whole):
                self._answer.release()
            else:
                self._answer.close()
