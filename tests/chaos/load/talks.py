"""Clients of other kinds: conversations, turns on a WebSocket, the official client's streams."""

from __future__ import annotations

import asyncio

import httpx2
import orjson
from aiohttp import ClientWebSocketResponse, WSMsgType
from openai import APIConnectionError, APIError, APIStatusError

from tests.chaos.load.client import BROKEN, Clients, hear_event
from tests.chaos.load.log import Asked, Heard, Json
from tests.chaos.load.words import completed, expect, expect_memory, remembered, say, words

_TRIES = 12
_LOCKED = "conversation_locked"


async def conversation(clients: Clients) -> None:
    """Talk in a conversation, at any intake, and ask at the end what was said."""
    conversation_id = await _new_conversation(clients)
    if conversation_id is None:
        return

    def prepare(asked: Asked) -> None:
        # A turn of which the client does not know may still run.
        asked.tolerated = (_LOCKED,)

    known: list[str] = []
    for script in ("say: one {mark}", "say: two {mark}", "script:recall"):
        if clients.stopping.is_set():
            return
        mode: Json = clients.random.choice(({}, {"stream": True}, {"background": True}))
        body = say(script, conversation=conversation_id, **mode)
        asked = await clients.ask("conversation", body, prepare=prepare)
        if not completed(asked):
            return
        if script == "script:recall":
            expect_memory(asked, known)
        known += remembered(asked)


async def _new_conversation(clients: Clients) -> str | None:
    for _ in range(_TRIES):
        try:
            made = await clients.sdks[clients.intake()].conversations.create()
        except APIError:
            await asyncio.sleep(0.3)
        else:
            return made.id
    return None


async def official_stream(clients: Clients) -> None:
    """Listen to a stream by the official client; what breaks is resumed."""
    script, text = words(clients.random)
    asked = clients.log.note("official_stream", say(script, stream=True), clients.intake())
    asked.heard = Heard(connections=1)
    request = {name: value for name, value in asked.body.items() if name != "stream"}
    try:
        stream = await clients.sdks[asked.intake].responses.create(**request, stream=True)
        async for event in stream:
            hear_event(asked, event.to_dict())
    except APIStatusError as error:
        clients.refused(asked, error.status_code, error.response.headers, error.response.text)
        return
    except (httpx2.ReadTimeout, httpx2.ConnectTimeout) as error:
        asked.end("hung", repr(error))
        return
    except (APIConnectionError, httpx2.HTTPError) as error:
        asked.end("ambiguous", repr(error))
    if asked.answer is None and asked.response_id is not None:
        await clients.resume(asked, asked.intake)
    elif asked.outcome == "open":
        asked.end("ambiguous", "the stream ended before its first event")
    expect(asked, text)


async def turns_on_a_socket(clients: Clients) -> None:
    """Take two turns on one WebSocket; what breaks is read over HTTP."""
    intake = clients.intake()
    known: list[str] = []
    previous: Json = {}
    try:
        async with clients.http.ws_connect(f"{intake}/v1/responses", max_msg_size=0) as socket:
            for script in ("say: one {mark}", "script:recall"):
                body = say(script, **previous)
                asked = clients.log.note("socket", body, intake)
                asked.heard = Heard(connections=1)
                await _turn(clients, asked, socket)
                if not completed(asked) or clients.stopping.is_set():
                    return
                if known:
                    expect(asked, "|".join(known))
                known += remembered(asked)
                previous = {"previous_response_id": asked.response_id}
    except BROKEN:
        return  # Nothing was asked, or what was asked is dealt with.


async def _turn(clients: Clients, asked: Asked, socket: ClientWebSocketResponse) -> None:
    """Give an order and hear its events; a broken connection is gone on with over HTTP."""
    try:
        await socket.send_json({"type": "response.create", **asked.body})
        while asked.answer is None:
            message = await socket.receive(timeout=clients.patience)
            if message.type is not WSMsgType.TEXT:
                break
            event = orjson.loads(message.data)
            if event["type"] == "error":
                headers = {"retry-after": ""}  # There are none within a socket.
                clients.refused(asked, int(event["status"]), headers, message.data)
                return
            hear_event(asked, event)
    except TimeoutError:
        asked.end("hung", f"the socket was silent for {clients.patience:g} s")
        return
    except BROKEN:
        pass
    if asked.answer is None and asked.response_id is not None:
        await clients.resume(asked, asked.intake)
    elif asked.answer is None:
        asked.end("ambiguous", "the socket broke before the first event")
