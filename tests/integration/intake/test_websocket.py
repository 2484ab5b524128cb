"""`/v1/responses` over real WebSockets: turns, lanes, contexts, refusals and farewells."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.integration.intake.sockets import Client, Sockets, event, listening
from tests.unit.intake.apps import ADMIN


async def answered(sockets: Sockets, client: Client, count: int, **fields: Any) -> str:
    """Order a response, let it be told, and return its id."""
    await client.order(**fields)
    command = await sockets.accepted(count)
    sockets.say(command["response_id"], f"answer {count}")
    told = await client.turn()
    assert told[-1]["type"] == "response.completed"
    return str(command["response_id"])


def texts(command: dict[str, Any]) -> list[str]:
    """What a command gives the model, in order."""
    own = command["request"]["input"]
    if isinstance(own, str):
        own = [{"content": own}]
    return [item["content"] for item in (*command["history"], *own)]


async def test_events_come_one_a_message_with_their_numbers() -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order("hello", stream=True, metadata={"a": "b"})
        command = await sockets.accepted(1)
        assert command["request"] == {
            "model": "gpt-5.1",
            "input": "hello",
            "metadata": {"a": "b"},
            "stream": True,
        }
        sockets.say(command["response_id"], "hi")
        told = await client.turn()
        assert [one["sequence_number"] for one in told] == [0, 1, 2]
        assert told[0]["response"]["id"] == command["response_id"]
        assert all("stream_id" not in one for one in told)


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_follows_the_one_before_with_new_items_alone(store: bool) -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, text="one", store=store)
        second = await answered(
            sockets, client, 2, text="two", previous_response_id=first, store=store
        )
        await client.order("three", previous_response_id=second, store=store)
        command = await sockets.accepted(3)
        assert texts(command) == ["one", "answer 1", "two", "answer 2", "three"]
        assert command["previous_response_id"] == second
        sockets.say(command["response_id"], "end")
        await client.turn()


async def test_what_is_kept_after_what_is_not_is_whole_by_itself() -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, text="one", store=False)
        await client.order("two", previous_response_id=first)
        command = await sockets.accepted(2)
        assert command["history"] == []
        assert texts(command) == ["one", "answer 1", "two"]
        assert command["previous_response_id"] == first
        sockets.say(command["response_id"], "end")
        await client.turn()
        await client.order("three", previous_response_id=command["response_id"])
        command = await sockets.accepted(3)
        assert texts(command) == ["one", "answer 1", "two", "end", "three"]
        assert command["request"]["input"] == "three"


async def test_a_warm_up_asks_no_model_and_can_be_followed() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": "f", "parameters": {}, "strict": None}
    ]
    async with listening() as sockets, sockets.client() as client:
        await client.order("note", generate=False, instructions="be brief", tools=tools)
        told = await client.turn()
        assert [one["type"] for one in told] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        warm = told[-1]["response"]
        assert (warm["output"], warm["usage"]["total_tokens"]) == ([], 0)
        assert sockets.intake.producer.messages == []

        await client.order("go", previous_response_id=warm["id"], store=False)
        command = await sockets.accepted(1)
        assert texts(command) == ["note", "go"]
        assert command["request"]["instructions"] == "be brief"
        assert command["request"]["tools"] == tools
        assert command["previous_response_id"] == warm["id"]


async def test_a_warm_up_may_prepare_instructions_alone_and_stand_anywhere_in_a_chain() -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, text="one", store=False)
        warm = {
            "type": "response.create",
            "model": "gpt-5.1",
            "generate": False,
            "instructions": "be brief",
            "previous_response_id": first,
        }
        await client.socket.send(orjson.dumps(warm).decode())
        told = await client.turn()
        await client.order("two", previous_response_id=told[-1]["response"]["id"], store=False)
        command = await sockets.accepted(2)
        assert texts(command) == ["one", "answer 1", "two"]
        assert command["request"]["instructions"] == "be brief"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"model": "nobody"}, 404, "model"),
        ({"temperature": 9}, 400, "temperature"),
        ({"previous_response_id": "resp_none"}, 400, "previous_response_id"),
    ],
)
async def test_a_warm_up_is_held_to_the_rules_of_any_request(
    fields: dict[str, Any], status: int, param: str
) -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order(generate=False, **fields)
        [refusal] = await client.turn()
        assert (refusal["status"], refusal["error"]["param"]) == (status, param)


async def test_a_context_is_known_to_its_connection_alone() -> None:
    async with listening() as sockets, sockets.client() as client, sockets.client() as other:
        first = await answered(sockets, client, 1, text="one", store=False)
        await other.order("two", previous_response_id=first)
        [refusal] = await other.turn()
        assert refusal["status"] == 400
        assert refusal["error"]["code"] == "previous_response_not_found"
        assert refusal["error"]["param"] == "previous_response_id"
        await client.order("two", previous_response_id=first, store=False)
        await sockets.accepted(2)
    assert sockets.contexts.size_bytes == 0


async def test_only_the_latest_response_of_a_lane_is_kept() -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, store=False)
        await answered(sockets, client, 2, store=False, previous_response_id=first)
        await client.order(previous_response_id=first, store=False)
        [refusal] = await client.turn()
        assert refusal["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("fails", ["refused", "failed"])
async def test_after_an_error_the_context_is_gone(fails: str) -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, store=False)
        model = "nobody" if fails == "refused" else "gpt-5.1"
        await client.order(previous_response_id=first, store=False, model=model)
        if fails == "failed":
            command = await sockets.accepted(2)
            sockets.say(command["response_id"], "oh", status="failed")
        told = await client.turn()
        assert told[-1]["type"] == ("error" if fails == "refused" else "response.failed")
        await client.order(previous_response_id=first, store=False)
        [refusal] = await client.turn()
        assert refusal["error"]["code"] == "previous_response_not_found"


async def test_a_deleted_response_is_followed_no_more() -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1)
        sockets.intake.shelf.gone.add(first)
        await client.order(previous_response_id=first)
        [refusal] = await client.turn()
        assert refusal["error"]["code"] == "previous_response_not_found"


async def test_one_lane_is_in_order_and_others_run_beside_it() -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order("first", stream_id="a")
        await client.order("second", stream_id="a")
        await client.order("beside", stream_id="b")
        await sockets.accepted(2)
        assert [command["request"]["input"] for command in sockets.commands] == ["first", "beside"]
        first, beside = (command["response_id"] for command in sockets.commands)
        sockets.say(beside, "b")
        told = await client.turn()
        assert {one["stream_id"] for one in told} == {"b"}
        sockets.say(first, "a")
        told = await client.turn()
        assert {one["stream_id"] for one in told} == {"a"}
        second = await sockets.accepted(3)
        assert second["request"]["input"] == "second"
        assert "stream_id" not in second["request"]


async def test_a_lane_can_fork_from_another_and_its_failure_leaves_that_alone() -> None:
    async with listening() as sockets, sockets.client() as client:
        first = await answered(sockets, client, 1, text="one", store=False, stream_id="a")
        fork = {"previous_response_id": first, "store": False}
        await client.order("fork", stream_id="b", model="nobody", **fork)
        [refusal] = await client.turn()
        assert (refusal["status"], refusal["stream_id"]) == (404, "b")
        await client.order("fork", stream_id="b", **fork)
        assert texts(await sockets.accepted(2)) == ["one", "answer 1", "fork"]
        await client.order("on", stream_id="a", **fork)
        assert texts(await sockets.accepted(3)) == ["one", "answer 1", "on"]


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_event", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": "session.update"}', "unknown_event_type", "type"),
        ('{"type": "response.create"}', "missing_required_parameter", "model"),
        ('{"type": "response.create", "model": "gpt-5"}', "missing_required_parameter", "input"),
        ('{"type": "response.create", "stream_id": ""}', "invalid_stream_id", "stream_id"),
        ('{"type": "response.create", "stream_id": "a b"}', "invalid_stream_id", "stream_id"),
        ('{"type": "response.create", "background": true}', "invalid_value", "background"),
        ('{"type": "response.create", "stream": false}', "invalid_value", "stream"),
        ('{"type": "response.create", "generate": "no"}', "invalid_type", "generate"),
        (b"{}", "invalid_event", None),
    ],
)
async def test_what_can_not_be_done_is_told_and_the_connection_goes_on(
    sent: str | bytes, code: str, param: str | None
) -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.socket.send(sent)
        refusal = await client.next()
        assert (refusal["type"], refusal["status"]) == ("error", 400)
        assert (refusal["error"]["code"], refusal["error"]["param"]) == (code, param)
        assert refusal["error"]["type"] == "invalid_request_error"
        await answered(sockets, client, 1)


async def test_steering_is_refused_with_the_input_given_back() -> None:
    async with listening() as sockets, sockets.client() as client:
        steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "left"}
        await client.socket.send(orjson.dumps(steer).decode())
        refusal = await client.next()
        assert refusal["type"] == "response.steer.failed"
        assert refusal["error"]["code"] == "steering_not_supported"
        assert refusal["steer"] == {"previous_response_id": "resp_1", "input": "left"}


async def test_a_note_that_a_response_was_processed_is_not_answered() -> None:
    async with listening() as sockets, sockets.client() as client:
        note = {"type": "response.processed", "response_id": "resp_1"}
        await client.socket.send(orjson.dumps(note).decode())
        await answered(sockets, client, 1)


async def test_an_error_within_a_stream_ends_the_turn() -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order()
        command = await sockets.accepted(1)
        told = event("error", 0, code="server_error", message="broken", param=None)
        ended = event("response.failed", 1, response={"status": "failed"})
        sockets.publish(command["response_id"], told + ended, last=True)
        [refusal] = await client.turn()
        assert refusal["error"]["message"] == "broken"
        assert refusal["sequence_number"] == 0
        await answered(sockets, client, 2)


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_without_a_key_the_handshake_is_refused(key: str | None) -> None:
    async with listening() as sockets:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        with pytest.raises(InvalidStatus) as raised:
            async with connect(sockets.url, additional_headers=headers):
                pass
        response = raised.value.response
        assert response.status_code == 401
        assert orjson.loads(response.body or b"")["error"]["code"] == "invalid_api_key"
        assert response.headers["x-request-id"].startswith("req_")


async def test_elsewhere_there_is_no_websocket() -> None:
    async with listening() as sockets:
        headers = {"authorization": f"Bearer {ADMIN}"}
        with pytest.raises(InvalidStatus) as raised:
            async with connect(f"{sockets.url}/more", additional_headers=headers):
                pass
        assert raised.value.response.status_code == 404


async def test_there_are_so_many_connections_and_no_more() -> None:
    async with listening(max_connections=1) as sockets:
        async with sockets.client():
            with pytest.raises(InvalidStatus) as raised:
                async with sockets.client():
                    pass
            assert raised.value.response.status_code == 503
            assert raised.value.response.headers["retry-after"]
        async with sockets.client() as client:
            await answered(sockets, client, 1)


async def test_a_message_above_the_limit_closes_the_connection() -> None:
    async with listening(max_message_bytes=10_000) as sockets, sockets.client() as client:
        await client.order("x" * 20_000)
        assert await client.closed() == 1009


async def test_after_its_time_a_connection_ends_once_what_runs_has() -> None:
    async with listening(max_seconds=0.2) as sockets, sockets.client() as client:
        await client.order()
        command = await sockets.accepted(1)
        # It is refused from the moment on that the time is over.
        told: list[dict[str, Any]] = []
        while not told or told[-1]["error"]["code"] != "websocket_connection_limit_reached":
            await client.socket.send('{"type": "response.create", "stream_id": "late"}')
            told = await client.turn()
        sockets.say(command["response_id"], "hi")
        while (told := await client.turn())[-1]["type"] == "error":
            pass
        assert told[-1]["type"] == "response.completed"
        [farewell] = await client.turn()
        assert farewell["error"]["code"] == "websocket_connection_limit_reached"
        assert await client.closed() == 1001


async def test_a_stop_lets_what_runs_end_and_closes_idle_connections_at_once() -> None:
    async with listening() as sockets, sockets.client() as idle, sockets.client() as client:
        await client.order()
        command = await sockets.accepted(1)
        stopping = sockets.stopping()
        assert await idle.closed() == 1012
        sockets.say(command["response_id"], "hi")
        told = await client.turn()
        assert told[-1]["type"] == "response.completed"
        assert await client.closed() == 1012
        await stopping


async def test_a_stop_that_can_not_wait_closes_with_a_code_that_says_so() -> None:
    async with listening(drain_seconds=1) as sockets, sockets.client() as client:
        await client.order()
        await sockets.accepted(1)
        stopping = sockets.stopping()
        assert await client.closed() == 1012
        await stopping
    assert sockets.intake.responses.open_requests == 0
