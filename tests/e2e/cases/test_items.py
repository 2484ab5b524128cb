"""Every type of item, out of a provider, into the store, and back to a provider."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from openai.types.responses import ResponseItem, ResponseOutputItem
from pydantic import BaseModel

from tests.e2e.cases.asking import AT_ONCE, NATIVE
from tests.e2e.cases.samples import sample, type_of, variants
from tests.e2e.cases.strict import ITEM, assert_response, assert_stream, assert_typed
from tests.e2e.sse import events as events_of
from tests.upstream import UpstreamProcess

Json = dict[str, Any]
OUTPUTS = variants(ResponseOutputItem)
INPUTS = variants(ResponseItem)
# The provider of the tests holds these to calls that came before, as the real one does.
CALL_OF = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}


@dataclass(frozen=True)
class Made:
    """An item that the provider makes, in a stream or not, with all its fields or the least."""

    model: type[BaseModel]
    full: bool
    stream: bool

    @property
    def id(self) -> str:
        """Its name among all tests."""
        fields, way = "full" if self.full else "least", "stream" if self.stream else "json"
        return f"{type_of(self.model)}-{fields}-{way}"

    @property
    def item(self) -> Json:
        """The item itself; ids are the item's own."""
        item = sample(self.model, full=self.full)
        return item | {"id": f"{type_of(self.model)}_{'full' if self.full else 'least'}"}


MADE = [
    Made(model, full, stream)
    for model in OUTPUTS
    for full in (True, False)
    for stream in (True, False)
]


def answer_of(made: Made) -> Json:
    """What the provider sends, to be queued."""
    response: Json = {
        "id": "resp_of_the_provider",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": NATIVE,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    final = response | {"status": "completed", "output": [made.item]}
    if not made.stream:
        raw = {
            "headers": {"content-type": "application/json"},
            "body": orjson.dumps(final).decode(),
        }
        return {"raw": raw, "match": f"make {made.id}."}
    told: list[Json] = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": made.item},
        {"type": "response.output_item.done", "output_index": 0, "item": made.item},
        {"type": "response.completed", "response": final},
    ]
    body = b"".join(
        b"event: %b\ndata: %b\n\n"
        % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(told)
    )
    raw = {"headers": {"content-type": "text/event-stream"}, "body": body.decode()}
    return {"raw": raw, "match": f"make {made.id}."}


@dataclass(frozen=True)
class Kept:
    """A response with such an item, as it came, as it was read, and how it went on."""

    events: list[Json]
    response: Json
    stored: Json
    asked: list[Json]


async def keep(http: ClientSession, upstream: UpstreamProcess, made: Made) -> Kept:
    """Let the provider make the item, read it, and go on from it."""
    body = {"model": NATIVE, "input": f"make {made.id}.", "stream": made.stream}
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        told = events_of(await answer.read()) if made.stream else []
        response = told[-1]["response"] if told else await answer.json()
    async with http.get(f"/v1/responses/{response['id']}") as answer:
        stored = await answer.json()
    after: Json = {"previous_response_id": response["id"], "safety_identifier": f"on {made.id}."}
    after |= {"model": NATIVE, "input": "say: on"}
    async with http.post("/v1/responses", json=after) as answer:
        await answer.read()
    return Kept(told, response, stored, [])


@pytest.fixture(scope="module")
async def kept(http: ClientSession, upstream_process: UpstreamProcess) -> dict[str, Kept]:
    upstream_process.reset()
    upstream_process.enqueue(*map(answer_of, MADE))
    places = asyncio.Semaphore(AT_ONCE)

    async def one(made: Made) -> Kept:
        async with places:
            return await keep(http, upstream_process, made)

    async with asyncio.TaskGroup() as group:
        tasks = {made.id: group.create_task(one(made)) for made in MADE}
    found = {name: task.result() for name, task in tasks.items()}
    for request in upstream_process.requests("on "):
        name = str(request["body"].get("safety_identifier")).removeprefix("on ").removesuffix(".")
        if name in found:
            found[name].asked.append(request["body"])
    return found


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.id)
async def test_an_item_of_a_provider_arrives_and_is_kept_as_it_was(
    kept: dict[str, Kept], made: Made
) -> None:
    outcome = kept[made.id]

    if made.stream:
        assert_stream(outcome.events)
    assert_response(outcome.response)
    assert outcome.response["output"] == [made.item]
    assert outcome.stored == outcome.response


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.id)
async def test_an_item_of_a_provider_goes_back_to_it_in_the_next_request(
    kept: dict[str, Kept], made: Made
) -> None:
    [asked] = kept[made.id].asked
    said = {"type": "message", "role": "user", "content": f"make {made.id}."}
    assert _plain(asked["input"][0]) == said
    assert asked["input"][1] == made.item


def _plain(item: Json) -> Json:
    return {key: item[key] for key in ("type", "role", "content")}


@pytest.mark.parametrize("model", INPUTS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("full", [True, False], ids=["full", "least"])
async def test_an_item_of_a_client_goes_to_the_provider_and_is_listed(
    http: ClientSession, upstream: UpstreamProcess, mark: str, model: type[BaseModel], full: bool
) -> None:
    item = {"call_id": "sample"} if type_of(model) in CALL_OF else {}
    item |= sample(model, full=full) | {"id": f"in_{mark}"}
    before, after = _around(item)
    said = {"type": "message", "role": "user", "content": "say: ok"}
    given = [*before, item, *after, said]
    body = {"model": NATIVE, "input": given, "safety_identifier": mark}
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        response = await answer.json()
    [request] = upstream.requests(mark)
    assert request["body"]["input"] == given

    query = {"order": "asc"}
    async with http.get(f"/v1/responses/{response['id']}/input_items", params=query) as answer:
        listed = (await answer.json())["data"]
    assert len(listed) == len(given)
    shown = listed[len(before)]
    assert shown["type"] == item["type"]
    assert_typed(ITEM.validate_python(shown, strict=True))


def _around(item: Json) -> tuple[list[Json], list[Json]]:
    """The call before an output, and the output after a call."""
    for output, call in CALL_OF.items():
        pair = {"call_id": item.get("call_id")}
        if item["type"] == output:
            said = {"arguments" if call == "function_call" else "input": "{}"}
            return [{"type": call, "name": "sample", **pair, **said}], []
        if item["type"] == call:
            return [], [{"type": output, "output": "sample", **pair}]
    return [], []
