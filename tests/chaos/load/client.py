"""How a good client behaves when servers die: bounded patience, retries, resumed streams."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI

from tests.chaos.load.log import TERMINAL, Asked, Heard, Json, Log

CONNECT_S = 10.0
TRIES = 8
LONGEST_PAUSE_S = 2.0
_DONE = b"data: [DONE]"
_END = b"\n\n"
_ACCEPT_NOT = (429, 503)
_NO_TOOLS = "mcp_server_unavailable"
BROKEN = (ClientError, ConnectionError, EOFError)


@dataclass
class Clients:
    """What all clients of a run share; `patience` is how long silence may last, in seconds."""

    intakes: Sequence[str]
    sdks: dict[str, AsyncOpenAI]
    http: ClientSession
    log: Log
    random: random.Random
    patience: float
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def intake(self) -> str:
        """Return any intake."""
        return self.random.choice(self.intakes)

    def other(self, intake: str) -> str:
        """Return an intake, another one where there are several."""
        return self.random.choice([one for one in self.intakes if one != intake] or [intake])

    async def ask(
        self, kind: str, body: Json, *, prepare: Callable[[Asked], None] | None = None
    ) -> Asked:
        """Ask until a request was accepted, or the client had enough; each try is a request."""
        pause = 0.1
        for _ in range(TRIES):
            asked = self.log.note(kind, body, self.intake())
            if prepare is not None:
                prepare(asked)
            await self.once(asked)
            if asked.outcome not in ("refused", "ambiguous") or self.stopping.is_set():
                break
            await asyncio.sleep(pause * (0.5 + self.random.random()))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return asked

    async def once(self, asked: Asked) -> None:
        """Send one request and follow it to its end."""
        if asked.body.get("stream"):
            asked.heard = asked.heard or Heard()
            await self._stream(asked)
        elif asked.body.get("background"):
            await self._begin(asked)
        else:
            await self.json(asked, asked.intake)

    async def json(self, asked: Asked, intake: str, *, leave_after: float | None = None) -> None:
        """Ask for the answer as JSON. With `leave_after` (seconds) the client goes away early."""
        headers = {"Idempotency-Key": asked.key} if asked.key else {}
        bound = leave_after or self.patience
        responses = self.sdks[intake].with_options(timeout=bound).responses
        try:
            raw = await responses.with_raw_response.create(**asked.body, extra_headers=headers)
        except APITimeoutError:
            asked.end("ambiguous" if leave_after else "hung", f"no answer in {bound:g} s")
        except APIConnectionError as error:
            asked.end("ambiguous", repr(error.__cause__))
        except APIStatusError as error:
            self.refused(asked, error.status_code, error.response.headers, error.response.text)
        else:
            response: Json = orjson.loads(raw.content)
            raw.parse()
            asked.know(response["id"])
            if response["status"] in TERMINAL:
                asked.finish(response)

    def refused(self, asked: Asked, status: int, headers: object, text: str) -> None:
        """Note an HTTP error."""
        if status in _ACCEPT_NOT:
            if "retry-after" not in headers:  # type: ignore[operator]  # a mapping of either client
                asked.complain(f"{status} came without Retry-After: {text[:200]}")
            asked.end("refused", f"{status} {text}")
        elif status >= 500:
            asked.end("error", f"{status} {text}")
        elif any(code in text for code in asked.tolerated):
            asked.end("refused", f"{status} {text}")
        else:
            asked.end("error", f"{status} {text}")
            if _NO_TOOLS not in text:
                asked.complain(f"a good request was answered with {status} {text[:200]}")

    async def _begin(self, asked: Asked) -> None:
        await self.json(asked, asked.intake)
        if asked.response_id is not None and asked.outcome == "open":
            await self.poll(asked)

    async def poll(self, asked: Asked) -> None:
        """Read a response, at any intake, until it is in a terminal state."""
        assert asked.response_id is not None
        while True:
            response = await self.read(asked, self.intake())
            if response is not None and response["status"] in TERMINAL:
                asked.finish(response)
                return
            if asked.outcome == "hung":
                return
            await asyncio.sleep(0.2 + 0.3 * self.random.random())

    async def read(self, asked: Asked, intake: str) -> Json | None:
        """Read a response once; None while the server can't tell."""
        assert asked.response_id is not None
        responses = self.sdks[intake].responses
        try:
            raw = await responses.with_raw_response.retrieve(asked.response_id)
        except APITimeoutError:
            asked.end("hung", f"a read gave nothing in {self.patience:g} s")
            return None
        except APIConnectionError:
            return None
        except APIStatusError as error:
            if error.status_code < 500 and error.status_code not in _ACCEPT_NOT:
                asked.complain(f"a read was answered with {error.status_code} {error.message}")
                asked.end("error", str(error))
                raise GoneError from error
            return None
        response: Json = orjson.loads(raw.content)
        return response

    async def _stream(self, asked: Asked) -> None:
        heard = asked.heard
        assert heard is not None
        headers = {"Idempotency-Key": asked.key} if asked.key else {}
        path = f"{asked.intake}/v1/responses"
        try:
            async with self.http.post(path, json=asked.body, headers=headers) as answer:
                if answer.status != 200:
                    self.refused(asked, answer.status, answer.headers, await answer.text())
                    return
                heard.connections += 1
                done = await self._listen(asked, answer)
        except TimeoutError:
            asked.end("hung", f"the stream was silent for {self.patience:g} s")
            return
        except BROKEN as error:
            done = False
            if asked.response_id is None:
                asked.end("ambiguous", repr(error))
                return
        if not done and asked.response_id is None:
            asked.end("ambiguous", "the stream ended before its first event")
        elif not done:
            await self.resume(asked, asked.intake)
        elif asked.answer is None:
            await self.poll(asked)

    async def resume(self, asked: Asked, intake: str) -> None:
        """Go on with a stream that broke, at the same intake or another, until its end."""
        heard = asked.heard
        assert heard is not None
        pause = 0.05
        while True:
            await asyncio.sleep(pause * (0.5 + self.random.random()))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            intake = self.intake()
            query = {"stream": "true"}
            if heard.numbers:
                query["starting_after"] = str(heard.numbers[-1])
            path = f"{intake}/v1/responses/{asked.response_id}"
            before = len(heard.numbers)
            try:
                async with self.http.get(path, params=query) as answer:
                    if answer.status != 200:
                        if answer.status < 500 and answer.status != 429:
                            told = (await answer.text())[:200]
                            asked.complain(f"a resume was answered with {answer.status} {told}")
                            asked.end("error", told)
                            return
                        continue
                    heard.connections += 1
                    done = await self._listen(asked, answer)
            except TimeoutError:
                asked.end("hung", f"the resumed stream was silent for {self.patience:g} s")
                return
            except BROKEN:
                done = False
            if done:
                if asked.answer is None:
                    await self.poll(asked)
                return
            if len(heard.numbers) > before:
                pause = 0.05

    async def _listen(self, asked: Asked, answer: ClientResponse) -> bool:
        """Hear events until the end; False when the stream ended without saying so."""
        frame = b""
        async for line in answer.content:
            frame += line
            if not frame.endswith(_END):
                frame = b"" if frame == b"\n" else frame
                continue
            if frame.startswith(_DONE):
                return True
            hear(asked, frame)
            frame = b""
        return False


class GoneError(Exception):
    """An accepted response is not there."""


def hear(asked: Asked, frame: bytes) -> None:
    """Note an event of a stream; comments tell nothing."""
    data = b"".join(line[5:] for line in frame.split(b"\n") if line.startswith(b"data:"))
    if data:
        hear_event(asked, orjson.loads(data))


def hear_event(asked: Asked, event: Json) -> None:
    """Note an event, which must follow those before it."""
    heard = asked.heard
    assert heard is not None
    kind = event.get("type", "")
    if "sequence_number" not in event:
        asked.complain(f"an event without a number came: {orjson.dumps(event)[:200]!r}")
        return
    heard.numbers.append(event["sequence_number"])
    if kind == "response.output_text.delta":
        heard.first_delta_at = heard.first_delta_at or time.time()
        place = (event["output_index"], event["content_index"])
        heard.deltas.setdefault(place, []).append(event["delta"])
        return
    response = event.get("response")
    if isinstance(response, dict):
        asked.know(response["id"])
        if kind.removeprefix("response.") in TERMINAL:
            asked.finish(response)


def timeouts(patience: float) -> ClientTimeout:
    """Return the bounds of plain connections: silence ends them, length does not."""
    return ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=patience)
