"""The control API over HTTP: the routes below `/_`, for tests in another process."""

from collections.abc import Callable

import orjson
from aiohttp import web

from tests.upstream.control import Gates, Queue
from tests.upstream.ledger import Ledger
from tests.upstream.refusals import RefusalError


def control_routes(
    ledger: Ledger, queue: Queue, gates: Gates, reset: Callable[[], None]
) -> list[web.RouteDef]:
    """Routes that script, release, reset and inspect; `reset` forgets everything."""

    async def script(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            given = orjson.loads(raw)
        except orjson.JSONDecodeError:
            given = raw.decode()
        try:
            for entry in given if isinstance(given, list) else [given]:
                queue.put(entry)
        except RefusalError as refusal:
            return refusal.response()
        return web.json_response({"ok": True})

    async def release(request: web.Request) -> web.Response:
        gates.release(request.query.get("key"))
        return web.json_response({"ok": True})

    async def forget(_: web.Request) -> web.Response:
        reset()
        return web.json_response({"ok": True})

    async def requests(request: web.Request) -> web.Response:
        return web.json_response(ledger.requests_json(request.query.get("match", "")))

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(ledger.stats_json())

    return [
        web.post("/_script", script),
        web.post("/_release", release),
        web.post("/_reset", forget),
        web.get("/_requests", requests),
        web.get("/_stats", stats),
    ]
