"""The HTTP server: routes, and the way of a request from its body to a delivery."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.upstream import dialogue as reading
from tests.upstream import operations, responses, scripts
from tests.upstream.answers import Answer, Json, say, truncated
from tests.upstream.chat import Completion
from tests.upstream.control import Gates, Queue, directives_for
from tests.upstream.control_api import control_routes
from tests.upstream.delivery import Delivery
from tests.upstream.dialogue import Dialogue
from tests.upstream.faults import Attempts, plan_of
from tests.upstream.language import Directives, Fault
from tests.upstream.ledger import Exchange, Ledger
from tests.upstream.refusals import RefusalError, server_error, unknown_model, wrong_key
from tests.upstream.store import Store, Stored

MODELS = ("gpt-5.1", "gpt-5-mini", "gpt-4.1", "gpt-4o-mini", "scripted")
_CREATED = 1_735_689_600
_MAX_BODY_BYTES = 64 * 1024 * 1024
_EXCHANGE = web.RequestKey("exchange", Exchange)


class ScriptedUpstream:
    """A model provider on a socket; see the package docstring for how to script it.

    Use it as an async context manager. `port` 0 takes a free one. With `api_key` every other
    key is refused. `lenient` accepts parameters that the API does not know. `tag` goes into
    every id: a fixed one makes ids repeatable, the default one makes them unique.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        lenient: bool = False,
        tag: str | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.queue = Queue()
        self.gates = Gates(self.ledger)
        self.store = Store()
        self._host, self._port = host, port
        self._api_key, self._lenient = api_key, lenient
        self._tag = secrets.token_hex(4) if tag is None else tag
        self._attempts = Attempts()
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._closing = False

    @property
    def url(self) -> str:
        """The origin, such as `http://127.0.0.1:4711`."""
        return f"http://{self._host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What clients of the API are given."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[Exchange]:
        """Every request to the API since the last reset, oldest first."""
        return list(self.ledger.exchanges)

    def enqueue(self, *entries: str | Json) -> None:
        """Queue answers: texts of the mini-language, or objects as in `POST /_script`."""
        for entry in entries:
            self.queue.put(entry)

    def release(self, key: str | None = None) -> None:
        """Let answers go on that `fault:hold#key` holds; all of them without a key."""
        self.gates.release(key)

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait for a condition on `requests` or `ledger.stats`. Raises TimeoutError."""
        await self.ledger.wait_until(condition, timeout_s)

    def reset(self) -> None:
        """Forget requests, counts, queued answers, attempts, gates and stored responses."""
        self.ledger.reset()
        self.queue.clear()
        self.gates.reset()
        self.store.clear()
        self._attempts = Attempts()

    async def __aenter__(self) -> "ScriptedUpstream":
        self._runner = web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._recorded], client_max_size=_MAX_BODY_BYTES)
        app.on_response_prepare.append(_identify)
        app.add_routes(
            [
                web.post("/v1/responses", self._create_response),
                web.post("/v1/responses/input_tokens", self._count_tokens),
                web.post("/v1/responses/compact", self._compact),
                web.get("/v1/responses/{id}", self._retrieve),
                web.delete("/v1/responses/{id}", self._delete),
                web.post("/v1/responses/{id}/cancel", self._cancel),
                web.post("/v1/chat/completions", self._create_completion),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{model}", self._get_model),
                *control_routes(self.ledger, self.queue, self.gates, self.reset),
            ]
        )
        return app

    @web.middleware
    async def _recorded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record API requests and their fate, and turn refusals into error answers."""
        if request.path.startswith("/_"):
            return await _refusing(request, handler)
        raw = await request.read()
        exchange = Exchange(
            number=next(self._numbers),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=_json_or_text(raw),
        )
        request[_EXCHANGE] = exchange
        self.ledger.open(exchange)
        status: int | None = None
        try:
            response = await _refusing(request, self._authorised(handler))
            status = response.status
        except (asyncio.CancelledError, ConnectionError) as gone:
            exchange.severed = exchange.severed or self._closing
            # aiohttp takes a cancelled handler for granted and logs any other error.
            raise asyncio.CancelledError from gone
        finally:
            self.ledger.close(exchange, status=status)
        return response

    def _authorised(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("authorization")
            if self._api_key is not None and given != f"Bearer {self._api_key}":
                raise wrong_key()
            return await handler(request)

        return checked

    async def _create_response(self, request: web.Request) -> web.StreamResponse:
        exchange = request[_EXCHANGE]
        body = reading.check_params(
            exchange.body, reading.RESPONSES_PARAMS, "input", lenient=self._lenient
        )
        background = bool(body.get("background"))
        key = exchange.headers.get("idempotency-key") if background else None
        if (known := self.store.of_key(key)) is not None:
            return await self._again(request, known, stream=bool(body.get("stream")))
        history = self.store.history(body.get("previous_response_id"))
        dialogue = reading.from_responses(body, history)
        planned = await self._plan(request, dialogue)
        if isinstance(planned, web.Response):
            return planned
        answer, delivery = planned
        self.ledger.began(exchange, f"resp_{self._tag}{exchange.number:08x}")
        turn = responses.render(answer, dialogue, body, exchange.response_id or "")
        final: Json = turn.events[-1].get("response") or turn.snapshot("failed")
        if body.get("store", True):
            stored = Stored(final, turn.events, [*history, *reading.input_items(body)])
            self.store.put(stored, key=key)
            if background:
                stored.asked = dialogue, directives_for(dialogue)
                stored.pending = ["queued", "in_progress"]
                gate = delivery.gate
                stored.held = lambda: gate is not None and not self.gates.is_open(gate)
                if not body.get("stream"):
                    return web.json_response(stored.now())
        if body.get("stream"):
            return await delivery.stream(turn.events)
        if answer.finish == "error":
            raise server_error(answer.error_code, answer.error_message)
        return await delivery.document(final)

    async def _again(
        self, request: web.Request, stored: Stored, *, stream: bool, after: int = -1
    ) -> web.StreamResponse:
        """Answer with a response that exists: as it is now, or with the rest of its events."""
        exchange = request[_EXCHANGE]
        exchange.response_id = stored.response["id"]
        if not stream:
            return web.json_response(stored.now())
        plan = plan_of((), "")
        if stored.asked is not None:
            dialogue, wanted = stored.asked
            plan = plan_of(self._active_faults(exchange, dialogue, wanted), dialogue.model)
        events = stored.events[after + 1 :]
        if plan.hold_after is not None:
            # The whole response is held at that event, whoever reads it.
            plan.hold_after = max(plan.hold_after - after - 1, 0)
        delivery = Delivery(request, exchange, plan, self.ledger, self.gates)
        await delivery.start()
        return await delivery.stream(events)

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        body = self._checked(request, operations.COUNT_PARAMS)
        dialogue = reading.from_responses(body)
        planned = await self._plan(request, dialogue)
        if isinstance(planned, web.Response):
            return planned
        return await planned[1].document(operations.counted(dialogue))

    async def _compact(self, request: web.Request) -> web.StreamResponse:
        body = self._checked(request, operations.COMPACT_PARAMS)
        dialogue = reading.from_responses(body)
        planned = await self._plan(request, dialogue)
        if isinstance(planned, web.Response):
            return planned
        tag = f"{self._tag}{request[_EXCHANGE].number:08x}"
        return await planned[1].document(operations.compacted(body, dialogue, tag))

    def _checked(self, request: web.Request, allowed: frozenset[str]) -> Json:
        body = request[_EXCHANGE].body
        return reading.check_params(body, allowed, "input", lenient=self._lenient)

    async def _create_completion(self, request: web.Request) -> web.StreamResponse:
        exchange = request[_EXCHANGE]
        body = reading.check_params(
            exchange.body, reading.CHAT_PARAMS, "messages", lenient=self._lenient
        )
        dialogue = reading.from_chat(body)
        planned = await self._plan(request, dialogue)
        if isinstance(planned, web.Response):
            return planned
        answer, delivery = planned
        self.ledger.began(exchange, f"chatcmpl-{self._tag}{exchange.number:08x}")
        completion = Completion(answer, dialogue, exchange.response_id or "")
        if body.get("stream"):
            options = body.get("stream_options") or {}
            chunks = completion.chunks(include_usage=bool(options.get("include_usage")))
            return await delivery.stream(chunks)
        return await delivery.document(completion.document())

    async def _plan(
        self, request: web.Request, dialogue: Dialogue
    ) -> tuple[Answer, Delivery] | web.Response:
        """Choose the answer and let happen what comes before its first byte."""
        exchange = request[_EXCHANGE]
        if dialogue.model.startswith("unknown"):
            raise unknown_model(dialogue.model)
        queued = self.queue.take(dialogue)
        if queued is not None and queued.raw is not None:
            raw = queued.raw
            return web.Response(status=raw.status, headers=raw.headers, body=raw.body.encode())
        wanted = directives_for(dialogue) if queued is None else queued.directives
        plan = plan_of(self._active_faults(exchange, dialogue, wanted), dialogue.model)
        if wanted.delay_s is not None:
            plan.interval_s = wanted.delay_s
        delivery = Delivery(request, exchange, plan, self.ledger, self.gates)
        await delivery.start()
        if plan.huge_bytes is not None:
            return say("x" * plan.huge_bytes), delivery
        return truncated(scripts.answer_for(dialogue, wanted), dialogue.limit), delivery

    def _active_faults(
        self, exchange: Exchange, dialogue: Dialogue, wanted: Directives
    ) -> list[Fault]:
        conversation = f"{dialogue.model}|{dialogue.messages}|{dialogue.outputs}"
        active = self._attempts.active(wanted.faults, conversation)
        for fault in active:
            self.ledger.faulted(exchange, fault.name)
        return active

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        response_id = request.match_info["id"]
        if request.query.get("stream") == "true":
            after = int(request.query.get("starting_after", -1))
            stored = self.store.get(response_id)
            return await self._again(request, stored, stream=True, after=after)
        request[_EXCHANGE].response_id = response_id
        return web.json_response(self.store.read(response_id))

    async def _cancel(self, request: web.Request) -> web.Response:
        return web.json_response(self.store.cancel(request.match_info["id"]))

    async def _delete(self, request: web.Request) -> web.Response:
        return web.json_response(self.store.delete(request.match_info["id"]))

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [_model(name) for name in MODELS]})

    async def _get_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name not in MODELS:
            raise unknown_model(name)
        return web.json_response(_model(name))


async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusalError as refusal:
        return refusal.response()
    except web.HTTPException as error:
        message = f"{error.reason} ({request.method} {request.path})"
        return RefusalError(error.status, message).response()


async def _identify(request: web.Request, response: web.StreamResponse) -> None:
    if _EXCHANGE in request:
        response.headers.setdefault("x-request-id", f"req_{request[_EXCHANGE].number:08x}")
        response.headers.setdefault("openai-processing-ms", "1")


def _json_or_text(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "scripted"}
