"""An intake that stops: what is under way ends if it can, and else is let go in order."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from contracts.packs import Flag
from services.intake.streaming.draining import Draining
from services.kit.health import Health
from tests.integration.intake.sockets import event, listening
from tests.integration.intake.test_http import serving
from tests.integration.serving import until
from tests.unit.intake.apps import Intake, last_json

JSON = orjson.dumps({"model": "gpt-5.1", "input": "hello"})
STREAMED = orjson.dumps({"model": "gpt-5.1", "input": "hello", "stream": True})


class Hub:
    """The hub of an intake in memory, as all hubs of a process."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def drain(self) -> None:
        self._intake.hub.drain()


def draining(intake: Intake, health: Health | None = None, **seconds: float) -> Draining:
    patience = {"delay_seconds": 0.0, "drain_seconds": 0.05, **seconds}
    hubs: Any = Hub(intake)
    return Draining(health or Health(), hubs, **patience)


async def test_a_stream_ends_in_order_without_done_and_the_client_knows_where_to_go_on() -> None:
    intake = Intake()
    async with serving(intake) as (session, server):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=STREAMED))
        await until(lambda: intake.producer.messages)
        intake.publish(intake.entry(b"data: 1\n\n"))
        answer = await asked
        assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
        await draining(intake).stop()
        rest = await answer.read()
        assert rest.startswith(b": this server restarts")
        assert b"starting_after" in rest
        assert b"[DONE]" not in rest
        await server.stop()
    assert intake.responses.open_requests == 0


async def test_what_has_come_before_the_end_of_the_drain_time_is_told_whole() -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=STREAMED))
        await until(lambda: intake.producer.messages)
        await draining(intake, drain_seconds=5).stop()
        intake.publish(intake.entry(b"data: 1\n\n"))
        intake.publish(intake.entry(b"data: 2\n\n", index=1, flags=Flag.LAST))
        assert await (await asked).read() == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("body", [JSON, STREAMED])
async def test_who_was_told_nothing_yet_hears_that_the_response_goes_on(body: bytes) -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=body))
        await until(lambda: intake.producer.messages)
        await draining(intake).stop()
        answer = await asked
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        # The official packages would ask again by themselves, and the answer be paid twice.
        assert answer.headers["x-should-retry"] == "false"
        error = (await answer.json())["error"]
        assert intake.producer.command()["response_id"] in error["message"]
    assert intake.responses.open_requests == 0


async def test_who_comes_after_the_drain_time_is_let_go_at_once() -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        intake.hub.drain()
        answer = await session.post("/v1/responses", data=JSON)
        assert answer.status == 503


async def test_readiness_says_no_while_requests_are_still_taken() -> None:
    intake, health = Intake(), Health()
    async with serving(intake) as (session, _):
        stopping = asyncio.create_task(draining(intake, health, delay_seconds=0.3).stop())
        await until(lambda: "traffic" in health.readiness)
        assert (await health.ready())["traffic"] != "ok"
        assert await health.alive() == {}
        asked = asyncio.ensure_future(session.post("/v1/responses", data=JSON))
        await until(lambda: intake.producer.messages)
        intake.publish(last_json(intake, b'{"id": 1}'))
        assert (await asked).status == 200
        await stopping


async def test_a_socket_that_is_let_go_in_mid_response_is_closed_as_by_a_restart() -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order()
        command = await sockets.accepted(1)
        sockets.publish(command["response_id"], event("response.created", 0, response={}))
        assert (await client.next())["type"] == "response.created"
        await draining(sockets.intake).stop()
        assert await client.closed() == 1012
    assert sockets.intake.responses.open_requests == 0
