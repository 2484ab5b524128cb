"""The HTTP edge: llama.cpp's own server answers, except where a tool call must be forced."""

import json
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

from infra.local.model.errors import BadRequestError
from infra.local.model.forced_calls import (
    ChunkTranslator,
    Json,
    choose_forced_tools,
    force,
    leave_free,
    translate_completion,
)

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_SSE_LINE_BYTES = 1024 * 1024
_SSE_DATA = b"data: "
_DONE = b"[DONE]"


class Front:
    """Serves one model. Closing a client's connection stops its generation."""

    def __init__(self, *, engine_url: str, model_id: str) -> None:
        self._engine_url = engine_url
        self._model_id = model_id

    def app(self) -> web.Application:
        """The application; the client that talks to the engine lives as long as it runs."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.cleanup_ctx.append(self._with_session)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat_completions)
        return app

    async def _with_session(self, _: web.Application) -> AsyncIterator[None]:
        async with ClientSession(
            self._engine_url,
            timeout=ClientTimeout(total=None, sock_connect=5),
            read_bufsize=MAX_SSE_LINE_BYTES,
        ) as session:
            self._session = session
            yield

    async def health(self, _: web.Request) -> web.Response:
        """200 as soon as this answers at all: the model is loaded before the port listens."""
        return web.json_response({"status": "ok"})

    async def models(self, _: web.Request) -> web.Response:
        """The one model. Chat completions take any model name and answer with this one."""
        model = {"id": self._model_id, "object": "model", "created": 0, "owned_by": "HuggingFaceTB"}
        return web.json_response({"object": "list", "data": [model]})

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's Chat Completions, JSON or server-sent events."""
        try:
            body = await _read_body(request)
            tools = choose_forced_tools(body)
        except BadRequestError as error:
            return _error(400, str(error), kind="invalid_request_error", param=error.param)
        sent = force(body, tools) if tools else leave_free(body)
        try:
            async with self._session.post("/v1/chat/completions", json=sent) as answer:
                return await _relay(request, answer, forced=bool(tools))
        except ClientError as error:
            return _error(502, f"the model's engine failed: {error}", kind="server_error")


async def _relay(
    request: web.Request, answer: ClientResponse, *, forced: bool
) -> web.StreamResponse:
    if answer.content_type != "text/event-stream":
        payload = await answer.read()
        if forced and answer.status == web.HTTPOk.status_code:
            payload = json.dumps(translate_completion(json.loads(payload))).encode()
        return web.Response(body=payload, status=answer.status, content_type=answer.content_type)
    response = web.StreamResponse(headers={"cache-control": "no-cache"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    if forced:
        async for event in _translated_events(answer):
            await response.write(event)
    else:
        async for piece in answer.content.iter_any():
            await response.write(piece)
    await response.write_eof()
    return response


async def _translated_events(answer: ClientResponse) -> AsyncIterator[bytes]:
    translator = ChunkTranslator()
    async for line in answer.content:
        data = line.strip().removeprefix(_SSE_DATA)
        if not line.startswith(_SSE_DATA):
            continue
        if data == _DONE:
            yield _SSE_DATA + _DONE + b"\n\n"
            continue
        for chunk in translator.translate(json.loads(data)):
            yield _SSE_DATA + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


async def _read_body(request: web.Request) -> Json:
    try:
        body = await request.json()
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}", param="body") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object", param="body")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("messages must be a list of objects", param="messages")
    if not messages:
        raise BadRequestError("messages must not be empty", param="messages")
    return body


def _error(status: int, message: str, *, kind: str, param: str | None = None) -> web.Response:
    error = {"message": message, "type": kind, "param": param, "code": None}
    return web.json_response({"error": error}, status=status)
