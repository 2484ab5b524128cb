"""Every word of `POST /v1/responses` has the fate that docs/api.md says, with each dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.e2e import parameter_items, parameters
from tests.e2e.parameters import (
    CONVERSATION,
    MARK,
    PREVIOUS,
    Case,
    Fate,
    Json,
    Obeyed,
    Passed,
    Refused,
    Seen,
)
from tests.e2e.parts import DIALECTS
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess

CASES = [*parameters.all_cases(), *parameter_items.all_cases()]
TRIED = [
    pytest.param(case, dialect, fate, id=f"{case} ({dialect})")
    for case in CASES
    for dialect, fate in (("responses", case.responses), ("chat", case.chat))
    if fate is not None
]


@pytest.fixture(scope="session")
async def places(http: ClientSession) -> dict[str, str]:
    """An earlier response and a conversation, in which something was said."""
    body: Json = {"model": DIALECTS["responses"], "input": "say: earlier"}
    async with http.post("/v1/responses", json=body) as answer:
        previous = (await answer.json())["id"]
    items = [{"type": "message", "role": "user", "content": "said earlier"}]
    async with http.post("/v1/conversations", json={"items": items}) as answer:
        conversation = (await answer.json())["id"]
    return {PREVIOUS: previous, CONVERSATION: conversation}


def written(request: Json, mark: str, places: dict[str, str]) -> Json:
    text = json.dumps(request)
    for place, value in {MARK: mark, **places}.items():
        text = text.replace(place, value)
    filled: Json = json.loads(text)
    return filled


def last_of(stream: str) -> Json:
    data = [line[6:] for line in stream.splitlines() if line.startswith("data: {")]
    response: Json = json.loads(data[-1])["response"]
    return response


async def observe(http: ClientSession, upstream: UpstreamProcess, body: Json, mark: str) -> Seen:
    async with http.post("/v1/responses", json=body) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    first: Any = text if body.get("stream") else json.loads(text)
    response = last_of(text) if body.get("stream") else first

    async def stored() -> Json | None:
        async with http.get(f"/v1/responses/{response['id']}") as got:
            kept: Json = await got.json()
            return kept if got.status == 200 else None

    async def ended() -> Json | None:
        kept = await stored()
        return kept if kept and kept["status"] not in ("queued", "in_progress") else None

    if response["status"] == "queued":
        response = await found(ended, "the background response ends")
    received = [request["body"] for request in upstream.requests(mark)]
    kept = body.get("store", True) or await stored() is not None
    return Seen(received, response, first, stored=kept)


def check(fate: Fate, seen: Seen, body: Json) -> None:
    if isinstance(fate, Obeyed):
        assert fate.holds(seen), (seen.received, seen.answer)
        return
    assert isinstance(fate, Passed)
    # Of the input of a chat request the cases of items tell.
    passed = {name: value for name, value in body.items() if name != "input" or name in seen.body}
    assert {name: seen.body.get(name) for name in passed} == passed


@pytest.mark.parametrize(("case", "dialect", "fate"), TRIED)
async def test_a_word_of_the_api_has_the_fate_that_is_documented(
    http: ClientSession,
    upstream: UpstreamProcess,
    mark: str,
    places: dict[str, str],
    case: Case,
    dialect: str,
    fate: Fate,
) -> None:
    base = {"model": DIALECTS[dialect], "input": f"say: ok ; {MARK}"}
    body = written({**base, **case.request}, mark, places)
    if isinstance(fate, Refused):
        async with http.post("/v1/responses", json=body) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["param"]) == (400, fate.param), error
        assert not upstream.requests(mark)
        return
    check(fate, await observe(http, upstream, body, mark), body)
