"""What clients do: one function per kind of client, each a few requests that belong together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from openai import APIError

from tests.chaos.load.client import Clients, GoneError
from tests.chaos.load.counting import LABEL, TOOL
from tests.chaos.load.log import Asked, Json
from tests.chaos.load.talks import conversation, official_stream, turns_on_a_socket
from tests.chaos.load.words import completed, expect, remembered, say, words
from tests.upstream import samples

_TOOLS = [{"type": "mcp", "server_label": LABEL, "require_approval": "never"}]
_KEY_TRIES = 12


async def plain(clients: Clients) -> None:
    """Ask for JSON; some answers take a while."""
    hang = clients.random.choice((None, None, 0.3, 1.0, 2.0))
    fault = "" if hang is None else f" ; fault:hang@{hang}"
    asked = await clients.ask("json", say("say: hello {mark}" + fault))
    expect(asked, "hello {mark}")


async def unkept(clients: Clients) -> None:
    """Ask for JSON that is not stored."""
    asked = await clients.ask("unkept", say("say: hello {mark} ; fault:hang@0.3", store=False))
    expect(asked, "hello {mark}")


async def stream(clients: Clients) -> None:
    """Listen to a stream, again and again until its end."""
    script, text = words(clients.random)
    asked = await clients.ask("stream", say(script, stream=True))
    expect(asked, text)


async def background(clients: Clients) -> None:
    """Ask in the background, look until it is done."""
    hang = clients.random.choice((0.1, 0.5, 2.0, 4.0))
    script = f"say: later {{mark}} ; fault:hang@{hang}"
    asked = await clients.ask("background", say(script, background=True))
    expect(asked, "later {mark}")


async def background_stream(clients: Clients) -> None:
    """Listen to a response that runs in the background."""
    script, text = words(clients.random)
    asked = await clients.ask("background_stream", say(script, background=True, stream=True))
    expect(asked, text)


async def chain(clients: Clients) -> None:
    """Say something, then ask twice what was said; the turns go to any intake."""
    first = await clients.ask("chain", say("say: first {mark}"))
    if not completed(first):
        return
    known, last = remembered(first), first
    for turn in range(2):
        if clients.stopping.is_set():
            return
        assert last.answer is not None
        mode: Json = {} if turn == 0 else clients.random.choice(({}, {"stream": True}))
        body = say("script:recall", previous_response_id=last.answer["id"], **mode)
        last = await clients.ask("chain", body)
        if not completed(last):
            return
        expect(last, "|".join(known))
        known += remembered(last)


def _calls(clients: Clients) -> tuple[str, int]:
    rounds = clients.random.randint(1, 3)
    calls = (f'{TOOL} {{"key": "{{mark}}/{number}"}}' for number in range(rounds))
    return "call: " + " ; then: ".join(calls), rounds


async def tools(clients: Clients) -> None:
    """Let the model call a tool that counts how often it is run."""
    script, rounds = _calls(clients)
    modes: tuple[Json, ...] = ({}, {"stream": True}, {"background": True})
    mode = clients.random.choice((*modes, {"background": True, "stream": True}))

    def prepare(asked: Asked) -> None:
        asked.rounds = rounds

    await clients.ask("tools", say(script, tools=_TOOLS, **mode), prepare=prepare)


async def image(clients: Clients) -> None:
    """Have a picture drawn, by the image tool or by code."""
    script = clients.random.choice(("image", "image", "code_interpreter"))
    mode: Json = clients.random.choice(({}, {"stream": True}, {"background": True}))
    include = ["code_interpreter_call.outputs"]

    def prepare(asked: Asked) -> None:
        asked.image = samples.png(asked.mark)

    body = say(f"script:{script} {{mark}}", include=include, **mode)
    await clients.ask("image", body, prepare=prepare)


async def repeated(clients: Clients) -> None:
    """Ask with a key, go away early, ask again elsewhere with the same key, and once more."""
    mode: Json = clients.random.choice(({}, {}, {"stream": True}, {"background": True}))
    body = say("say: once {mark} ; fault:hang@0.6", **mode)
    asked = clients.log.note("repeated", body, clients.intake())
    asked.key = f"key-{secrets.token_hex(8)}"
    if not asked.body.get("stream") and clients.random.random() < 0.5:
        await clients.json(asked, asked.intake, leave_after=0.3)
    pause = 0.1
    for _ in range(_KEY_TRIES):
        if asked.outcome in ("answered", "error", "hung"):
            break
        asked.intake = clients.other(asked.intake)
        await clients.once(asked)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 2.0)
    expect(asked, "once {mark}")
    if asked.answer is not None and not asked.body.get("stream"):
        first = asked.answer
        again = Asked(asked.mark, asked.kind, asked.body, clients.other(asked.intake))
        again.key = asked.key
        await clients.once(again)
        asked.problems += again.problems
        if again.answer is not None and again.answer != first:
            asked.complain("the same key was answered with another response")
        if again.response_id is not None:
            asked.know(again.response_id)


async def cancelled(clients: Clients) -> None:
    """Stop a background response that has much to say."""
    body = say("say: never {mark} ; fault:hang@3", background=True)
    asked = clients.log.note("cancelled", body, clients.intake())
    await clients.json(asked, asked.intake)
    if asked.response_id is None:
        return
    await asyncio.sleep(clients.random.random())
    for _ in range(_KEY_TRIES):
        responses = clients.sdks[clients.intake()].responses
        try:
            response = await responses.cancel(asked.response_id)
        except APIError as error:
            if getattr(error, "status_code", 503) == 400:
                break  # It is done already.
        else:
            asked.cancelled = response.status == "cancelled"
            break
        await asyncio.sleep(0.3)
    await clients.poll(asked)
    if asked.cancelled and asked.answer is not None and asked.answer["status"] != "cancelled":
        asked.complain(f"it was cancelled, then {asked.answer['status']}")


async def deleted(clients: Clients) -> None:
    """Have an answer forgotten."""
    asked = await clients.ask("deleted", say("say: forget {mark}"))
    if asked.response_id is None or not completed(asked):
        return
    for _ in range(_KEY_TRIES):
        responses = clients.sdks[clients.intake()].responses
        try:
            await responses.delete(asked.response_id)
        except APIError as error:
            if getattr(error, "status_code", 503) == 404:
                # An earlier try, whose answer was lost, deleted it.
                asked.deleted = True
                return
        else:
            asked.deleted = True
            return
        await asyncio.sleep(0.5)


@dataclass(frozen=True)
class Scenario:
    """A kind of client and how many of a hundred are so."""

    weight: float
    run: Callable[[Clients], Awaitable[None]]
    needs_tools: bool = False


SCENARIOS = (
    Scenario(20, plain),
    Scenario(16, stream),
    Scenario(4, official_stream),
    Scenario(4, turns_on_a_socket),
    Scenario(4, conversation),
    Scenario(10, background),
    Scenario(8, background_stream),
    Scenario(8, chain),
    Scenario(10, tools, needs_tools=True),
    Scenario(4, image),
    Scenario(6, repeated),
    Scenario(3, cancelled),
    Scenario(3, deleted),
    Scenario(2, unkept),
)


async def run(clients: Clients, scenario: Scenario) -> None:
    """Be one client."""
    try:
        await scenario.run(clients)
    except GoneError:
        return  # The complaint is in the log.
