"""Callers of every kind, and the things of a project that they reach for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from aiohttp import ClientSession, FormData, WSMsgType, WSServerHandshakeError

from tests.e2e.access import MODEL, Made
from tests.e2e.sse import events
from tests.e2e.waiting import found

MARK = "a-secret-of-the-project"
"""What stands in everything that is made, and in no answer to a stranger."""
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back: for a WebSocket the status of the handshake, or of the order."""

    status: int
    text: str

    @property
    def code(self) -> Any:
        """The code of an error."""
        return (orjson.loads(self.text).get("error") or {}).get("code")


class Caller:
    """Somebody with a key, or without."""

    def __init__(self, name: str, url: str, secret: str | None) -> None:
        self.name = name
        headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        self.http = ClientSession(url, headers=headers)

    async def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send one request and read the whole answer."""
        if method == "WEBSOCKET":
            return await self._order(path, body)
        async with self.http.request(method, path, json=body) as answer:
            content = await answer.read()
            return Answer(answer.status, content.decode("utf-8", "replace"))

    async def _order(self, path: str, body: Any) -> Answer:
        texts: list[str] = []
        try:
            async with self.http.ws_connect(path) as socket:
                await socket.send_json({"type": "response.create", **body})
                while True:
                    message = await socket.receive(timeout=_PATIENCE_S)
                    assert message.type is WSMsgType.TEXT, message
                    texts.append(str(message.data))
                    event = orjson.loads(message.data)
                    if event["type"] == "error":
                        return Answer(event["status"], "".join(texts))
                    if event["type"] == "response.completed":
                        return Answer(200, "".join(texts))
        except WSServerHandshakeError as error:
            return Answer(error.status, '{"error": {"code": "invalid_api_key"}}')

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer that must be good."""
        answer = await self.ask(method, path, body)
        assert answer.status == 200, answer.text
        return orjson.loads(answer.text)


async def _response(owner: Caller, _: Caller, **fields: Any) -> Made:
    body = {"model": MODEL, "input": f"say: {MARK}", **fields}
    return {"response_id": (await owner.json("POST", "/v1/responses", body))["id"]}


async def _background(owner: Caller, root: Caller) -> Made:
    return await _response(owner, root, background=True)


async def _stream(owner: Caller, _: Caller) -> Made:
    body = {"model": MODEL, "input": f"say: {MARK}", "stream": True}
    answer = await owner.ask("POST", "/v1/responses", body)
    return {"response_id": events(answer.text.encode())[0]["response"]["id"]}


async def _conversation(owner: Caller, _: Caller) -> Made:
    item = {"type": "message", "role": "user", "content": MARK}
    body = {"items": [item], "metadata": {"mark": MARK}}
    made = await owner.json("POST", "/v1/conversations", body)
    items = await owner.json("GET", f"/v1/conversations/{made['id']}/items")
    return {"conversation_id": made["id"], "item_id": items["data"][0]["id"]}


async def _artifact(owner: Caller, _: Caller) -> Made:
    body = {"model": MODEL, "input": f"script:image {MARK}"}
    response = await owner.json("POST", "/v1/responses", body)

    async def listed() -> Any:
        return (await owner.json("GET", f"/v1/artifacts?response_id={response['id']}"))["data"]

    [artifact] = await found(listed, "the artifact is listed")
    return {"artifact": artifact["id"], "response_id": response["id"]}


async def _costs(owner: Caller, root: Caller) -> Made:
    made = await _response(owner, root)

    async def lines() -> Any:
        path = f"/v1/costs/lines?response_id={made['response_id']}"
        return (await owner.json("GET", path))["data"]

    await found(lines, "the response has costs")
    return made


async def _file(owner: Caller, _: Caller) -> Made:
    form = FormData()
    form.add_field("purpose", "user_data")
    form.add_field("file", MARK.encode(), filename=f"{MARK}.txt", content_type="text/plain")
    async with owner.http.post("/v1/files", data=form) as answer:
        assert answer.status == 200, await answer.text()
        return {"file": (await answer.json())["id"]}


async def _model(_: Caller, __: Caller) -> Made:
    return {"model": MODEL}


async def _key(_: Caller, manager: Caller) -> Made:
    made = await manager.json("POST", "/v1/keys", {"name": MARK})
    return {"key_id": made["id"]}


async def _endpoint(_: Caller, manager: Caller) -> Made:
    body = {"name": MARK, "url": "https://example.com/hook", "event_types": ["response.failed"]}
    made = await manager.json("POST", "/v1/webhook_endpoints", body)
    return {"endpoint": made["id"], "delivery": f"whd_{uuid4().hex}"}


MAKERS: dict[str, Callable[[Caller, Caller], Awaitable[Made]]] = {
    "response": _response,
    "background": _background,
    "stream": _stream,
    "conversation": _conversation,
    "artifact": _artifact,
    "costs": _costs,
    "file": _file,
    "model": _model,
    "key": _key,
    "endpoint": _endpoint,
}
"""How the owner makes a thing; the second caller is an administrator of the same project."""
