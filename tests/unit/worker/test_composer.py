"""The tool loop: model turns and tool calls become one response with one numbering."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tools import ToolResultV1
from services.worker.chat.turn import TurnEnd
from services.worker.domain import Event, Item, Job, Response
from services.worker.errors import UpstreamError
from services.worker.runs.composer import Composer
from services.worker.runs.writer import EventWriter
from services.worker.tools.mcp import McpCall
from tests.unit.worker.runs import (
    MCP_TOOL,
    NOW,
    LocalTools,
    ScriptedTurns,
    call_turn,
    check_response,
    check_stream,
    config,
    events_of,
    ids,
    job,
    kinds,
    text_turn,
    used,
)

LOOKUP = {"type": "function", "name": "lookup", "parameters": {}, "strict": False}


class Composed:
    """One composed response: what the client saw, what the model was asked."""

    def __init__(self, of: Job, turns: ScriptedTurns, tools: LocalTools, max_turns: int) -> None:
        self.job, self.turns, self.tools = of, turns, tools
        self._written: list[bytes] = []
        self.writer = EventWriter(self._written.append)
        provider = config("first", "chat")

        async def call_tool(call: McpCall) -> ToolResultV1:
            return await tools.call(of, call)

        self._composer = Composer(
            job=of,
            provider=provider,
            turns=turns,
            plan=tools.plan(of, provider),
            writer=self.writer,
            call_tool=call_tool,
            new_id=ids(),
            max_turns=max_turns,
        )

    async def run(self) -> Response:
        skeleton = self.job.skeleton(created_at=int(NOW.timestamp()))
        for kind in ("response.created", "response.in_progress"):
            self.writer.emit({"type": kind, "response": skeleton})
        response = await self._composer.run(skeleton)
        event: Event = {"type": f"response.{response['status']}", "response": response}
        self._written.append(self.writer.close(event))
        check_stream(self.events)
        check_response(response)
        self._check_items(response["output"])
        return response

    def _check_items(self, output: list[Item]) -> None:
        done = [e for e in self.events if e["type"] == "response.output_item.done"]
        told = [e["item"] for e in sorted(done, key=lambda e: e["output_index"])]
        assert told == output
        added = [
            e["output_index"] for e in self.events if e["type"] == "response.output_item.added"
        ]
        assert added == list(range(len(output)))

    @property
    def events(self) -> list[Event]:
        return events_of(b"".join(self._written))

    def offered(self, turn: int) -> Any:
        return self.turns.asked[turn][0].get("tool_choice")


def composed(
    *turns: list[Any],
    failing: frozenset[str] = frozenset(),
    max_turns: int = 8,
    **request: Any,
) -> Composed:
    request.setdefault("tools", [MCP_TOOL])
    return Composed(job(**request), ScriptedTurns(list(turns)), LocalTools(failing), max_turns)


async def test_a_turn_without_calls_is_the_answer() -> None:
    made = composed(text_turn("hi"), tools=[])
    response = await made.run()
    assert [item["type"] for item in response["output"]] == ["message"]
    assert response["usage"] == used(10, 5)


async def test_tools_are_listed_called_and_their_outputs_given_back() -> None:
    made = composed(call_turn(("echo", '{"a": 1}')), text_turn("done"))
    response = await made.run()
    listing, call, message = response["output"]
    assert [tool["name"] for tool in listing["tools"]] == ["echo", "add"]
    assert (call["type"], call["status"], call["name"]) == ("mcp_call", "completed", "echo")
    assert (call["arguments"], call["output"]) == ('{"a": 1}', 'echo({"a": 1})')
    assert message["content"][0]["text"] == "done"
    assert kinds(e for e in made.events if "mcp_call" in e["type"]) == [
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
    ]
    question, asked, told = made.turns.asked[1][1]
    assert question["role"] == "user"
    assert (asked["type"], asked["call_id"]) == ("function_call", "call_echo_0")
    assert told == {
        "type": "function_call_output",
        "call_id": "call_echo_0",
        "output": 'echo({"a": 1})',
    }


async def test_the_usage_of_all_turns_is_summed() -> None:
    response = await composed(call_turn(("echo", "{}")), text_turn("done")).run()
    assert response["usage"]["total_tokens"] == 10 + 15
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 2


async def test_parallel_calls_are_answered_each_by_its_own_id() -> None:
    made = composed(call_turn(("echo", '"1"'), ("add", '"2"')), text_turn("done"))
    response = await made.run()
    assert [item["output"] for item in response["output"][1:3]] == ['echo("1")', 'add("2")']
    outputs = made.turns.asked[1][1][-2:]
    assert [(o["call_id"], o["output"]) for o in outputs] == [
        ("call_echo_0", 'echo("1")'),
        ("call_add_1", 'add("2")'),
    ]
    assert [call.position for call in made.tools.made] == [0, 1]


async def test_positions_count_over_turns_so_that_call_ids_differ() -> None:
    made = composed(call_turn(("echo", "{}")), call_turn(("echo", "{}")), text_turn("done"))
    await made.run()
    assert len({call.call_id("resp_ours") for call in made.tools.made}) == 2


async def test_a_failed_tool_is_told_to_the_client_and_to_the_model() -> None:
    made = composed(call_turn(("echo", "{}")), text_turn("sorry"), failing=frozenset({"echo"}))
    response = await made.run()
    call = response["output"][1]
    assert (call["status"], call["output"]) == ("failed", None)
    assert call["error"]["content"] == [{"type": "text", "text": "it broke"}]
    assert made.turns.asked[1][1][-1]["output"] == "it broke"
    assert "mcp_call.failed" in kinds(made.events)


async def test_a_call_for_the_client_ends_the_response_after_our_own_calls() -> None:
    made = composed(call_turn(("echo", "{}"), ("lookup", "{}")), tools=[MCP_TOOL, LOOKUP])
    response = await made.run()
    _, ours, theirs = response["output"]
    assert (ours["type"], ours["status"]) == ("mcp_call", "completed")
    assert (theirs["type"], theirs["call_id"]) == ("function_call", "call_lookup_1")
    assert len(made.turns.asked) == 1


async def test_calls_above_the_limit_are_not_made_and_the_model_may_call_no_more() -> None:
    made = composed(
        call_turn(("echo", "1"), ("add", "2"), ("add", "3")), text_turn("done"), max_tool_calls=2
    )
    response = await made.run()
    assert [call.arguments for call in made.tools.made] == ["1", "2"]
    assert response["output"][3]["status"] == "failed"
    assert "max_tool_calls" in response["output"][3]["error"]["content"][0]["text"]
    assert made.offered(1) == "none"


async def test_a_model_that_calls_although_it_may_not_makes_no_more_calls() -> None:
    made = composed(
        call_turn(("echo", "1")), call_turn(("echo", "2")), text_turn("done"), max_tool_calls=1
    )
    await made.run()
    assert [call.arguments for call in made.tools.made] == ["1"]


@pytest.mark.parametrize(
    ("choice", "first", "then"),
    [
        ("required", "required", "auto"),
        ("auto", "auto", "auto"),
        (
            {"type": "mcp", "server_label": "srv", "name": "add"},
            {"type": "function", "name": "add"},
            "auto",
        ),
        ({"type": "mcp", "server_label": "srv"}, "required", "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": []},
            {"type": "allowed_tools", "mode": "required", "tools": []},
            {"type": "allowed_tools", "mode": "auto", "tools": []},
        ),
    ],
)
async def test_a_forced_choice_holds_for_the_first_turn(choice: Any, first: Any, then: Any) -> None:
    made = composed(call_turn(("add", "{}")), text_turn("done"), tool_choice=choice)
    await made.run()
    assert (made.offered(0), made.offered(1)) == (first, then)


async def test_too_many_turns_are_an_error() -> None:
    made = composed(*(call_turn(("echo", "{}")) for _ in range(3)), max_turns=3)
    with pytest.raises(UpstreamError, match="more than 3 model turns"):
        await made.run()


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_calls_of_a_turn_that_broke_off_are_closed_but_not_made(status: str) -> None:
    made = composed(call_turn(("echo", '{"a'), status=status))
    if status == "failed":
        end = made.turns.turns[0][-1]
        assert isinstance(end, TurnEnd)
        error = {"code": "server_error", "message": "the stream ended early"}
        made.turns.turns[0][-1] = TurnEnd("failed", end.output, error=error)
    response = await made.run()
    assert response["status"] == status
    assert response["output"][1]["status"] == "incomplete"
    assert made.tools.made == []


async def test_servers_that_were_listed_before_are_not_listed_again() -> None:
    listing = {"id": "mcpl_0", "type": "mcp_list_tools", "server_label": "srv", "tools": []}
    earlier = {
        "id": "mcp_0",
        "type": "mcp_call",
        "server_label": "srv",
        "name": "echo",
        "arguments": "{}",
        "output": "one",
        "status": "completed",
    }
    made = composed(text_turn("hi"), history=[listing, earlier])
    response = await made.run()
    assert [item["type"] for item in response["output"]] == ["message"]
    asked = made.turns.asked[0][1]
    assert [item["type"] for item in asked] == ["function_call", "function_call_output", "message"]
    assert asked[0]["call_id"] == asked[1]["call_id"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "output_index": "0", "delta": "x"},
        {"output_index": 0},
        {"type": "response.output_item.added", "output_index": 0, "item": "x"},
    ],
)
async def test_an_event_of_another_shape_is_the_provider_s_fault(event: Event) -> None:
    made = composed([event, TurnEnd("completed", [])])
    with pytest.raises(UpstreamError, match="another shape"):
        await made.run()


async def test_a_turn_that_does_not_end_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="without an end"):
        await composed(text_turn("hi")[:-1]).run()


async def test_what_an_earlier_attempt_told_is_not_told_again() -> None:
    written: list[bytes] = []
    writer = EventWriter(written.append, skip_through=1)
    for kind in ("response.created", "response.in_progress"):
        writer.emit({"type": kind, "response": {}})
    assert written == []
    assert writer.last_sequence_number == 1
    writer.emit({"type": "response.output_item.added", "output_index": 0, "item": {}})
    assert [event["sequence_number"] for event in events_of(b"".join(written))] == [2]


async def test_the_end_is_numbered_after_what_an_earlier_attempt_told() -> None:
    writer = EventWriter(None, skip_through=4)
    [last] = events_of(writer.close({"type": "response.failed", "response": {}}))
    assert last["sequence_number"] == 5
    assert writer.last_sequence_number == 5
