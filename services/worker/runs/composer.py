"""Puts model turns and tool calls together into one response: the tool loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from contracts.providers import ProviderConfig
from contracts.tools import ToolResultV1
from services.worker.chat.turn import TurnEnd
from services.worker.checkpoints.state import Boundary, PendingCall
from services.worker.domain import (
    Event,
    Item,
    Job,
    Response,
    add_usage,
    mcp_history_as_functions,
)
from services.worker.errors import MALFORMED, UpstreamError
from services.worker.providers.turns import Turns
from services.worker.runs.calls import (
    OVER_LIMIT,
    OpenCall,
    close,
    list_id,
    opened,
    result_of,
    result_told,
    tell,
)
from services.worker.runs.outcome import Progress
from services.worker.runs.writer import EventWriter
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan

CallTool = Callable[[McpCall], Awaitable[ToolResultV1]]
SaveBoundary = Callable[[Boundary], Awaitable[None]]
MakeSure = Callable[[], Awaitable[None]]


async def _keep_nothing(_: Boundary) -> None: ...


async def _sure() -> None: ...


@dataclass
class Composer:
    """Composes one response. `new_id` makes item ids; `call_tool` runs one MCP call; `seal` writes
    into finished items what the client shall keep for us. `save` returns when a boundary is
    durable: before the calls of a turn are made. `progress` hears of each boundary. `make_sure` is
    awaited before a model or a tool is asked, and raises when another worker may do so.
    """

    job: Job
    provider: ProviderConfig
    turns: Turns
    plan: ToolPlan
    writer: EventWriter
    call_tool: CallTool
    new_id: Callable[[str], str]
    max_turns: int
    seal: Callable[[Item], None] | None = None
    save: SaveBoundary = _keep_nothing
    progress: Progress = field(default_factory=Progress)
    make_sure: MakeSure = _sure
    _created_at: int = 0
    _turns: int = 0
    _output: list[Item] = field(default_factory=list)
    _carried: list[Item] = field(default_factory=list)
    _changed: dict[str, Any] = field(default_factory=dict)
    _usage: dict[str, Any] | None = None
    _calls_made: int = 0

    async def run(self, response: Response, begin: Boundary | None = None) -> Response:
        """Return the finished Response, built upon its skeleton; raises `UpstreamError`.

        With `begin` it goes on from there: finished turns are not asked again.
        """
        self._created_at = response["created_at"]
        request = self._turn_request()
        names = self.plan.names()
        own_input = mcp_history_as_functions(self.job.complete_input(), names)
        if begin is None:
            self._list_tools(items_before=self.job.input_items())
        elif (end := await self._go_on(begin)) is not None:
            return self._finish(response, end)
        while self._turns < self.max_turns:
            self._at_boundary()
            await self.make_sure()
            asked = {**request, **self._changed}
            end, calls, originals = await self._turn(asked, [*own_input, *self._carried])
            self._turns += 1
            self._usage = add_usage(self._usage, end.usage)
            if end.status != "completed":
                self._cut_off(calls)
                return self._finish(response, end)
            if not calls:
                return self._finish(response, end)
            self._carried = [*self._carried, *originals]
            if "tool_choice" in request:
                self._changed["tool_choice"] = _unforced(asked["tool_choice"])
            self.progress.paid(self._usage, len(self._output))
            await self.save(self._boundary(calls, end.service_tier))
            await self._run_calls(calls)
            if self._waits_for_client():
                return self._finish(response, end)
        raise UpstreamError(
            f"the response took more than {self.max_turns} model turns", retryable=False
        )

    async def _go_on(self, begin: Boundary) -> TurnEnd | None:
        """Take up where an earlier try ended; return the end if that was the last turn."""
        self._created_at = begin.created_at
        self._turns = begin.turns
        self._output = list(begin.output)
        self._carried = begin.carried_to(self.provider.name)
        self._changed = dict(begin.changed)
        self._usage = begin.usage
        self._calls_made = begin.calls_made
        self.progress.paid(self._usage, len(self._output))
        if not begin.pending:
            return None
        calls = [
            OpenCall(one.output_index, self._output[one.output_index], one.call_id)
            for one in begin.pending
        ]
        await self._run_calls(calls)
        if self._waits_for_client():
            return TurnEnd("completed", [], service_tier=begin.service_tier)
        return None

    def _at_boundary(self) -> None:
        self.writer.begin_turn()
        self.progress.boundary = self._boundary([], None)
        self.progress.asking(self._usage, len(self._output), self._carried)

    def _boundary(self, calls: list[OpenCall], service_tier: str | None) -> Boundary:
        return Boundary(
            provider=self.provider.name,
            created_at=self._created_at,
            next_number=self.writer.next_number,
            turns=self._turns,
            output=list(self._output),
            carried=self._carried,
            pending=[PendingCall(call.output_index, call.call_id) for call in calls],
            usage=self._usage,
            calls_made=self._calls_made,
            changed=dict(self._changed),
            service_tier=service_tier,
        )

    def _turn_request(self) -> dict[str, Any]:
        request = self.job.upstream_request(model=self.job.command.model, stream=True)
        request.pop("input", None)
        if "tools" in request:
            request["tools"] = self.job.complete_tools(self.plan.offered)
        if self.plan.runs_here:
            request.pop("max_tool_calls", None)
        if "tool_choice" in request:
            request["tool_choice"] = self.plan.choice(request["tool_choice"])
        return request

    def _limit_reached(self) -> bool:
        limit = self.job.request.get("max_tool_calls")
        return limit is not None and self._calls_made >= limit

    def _waits_for_client(self) -> bool:
        return any(
            item.get("type") in ("function_call", "custom_tool_call") for item in self._output
        )

    def _cut_off(self, calls: list[OpenCall]) -> None:
        """Close the calls of a turn that broke off: they were not made."""
        for call in calls:
            call.item["status"] = "incomplete"
            self._event("response.output_item.done", output_index=call.output_index, item=call.item)

    def _list_tools(self, *, items_before: list[Item]) -> None:
        known = {i.get("server_label") for i in items_before if i.get("type") == "mcp_list_tools"}
        for server in self.plan.servers:
            if server.label in known:
                continue
            index = len(self._output)
            item: Item = {
                "id": list_id(self.job.response_id, server.label),
                "type": "mcp_list_tools",
                "server_label": server.label,
                "tools": [],
            }
            self._event("response.output_item.added", output_index=index, item=dict(item))
            place = {"output_index": index, "item_id": item["id"]}
            self._event("response.mcp_list_tools.in_progress", **place)
            item["tools"] = [tool.model_dump() for tool in server.tools]
            self._event("response.mcp_list_tools.completed", **place)
            self._event("response.output_item.done", output_index=index, item=item)
            self._output.append(item)

    def _event(self, kind: str, **fields: Any) -> None:
        self.writer.emit({"type": kind, **fields})

    async def _turn(
        self, request: dict[str, Any], items: list[Item]
    ) -> tuple[TurnEnd, list[OpenCall], list[Item]]:
        base = len(self._output)
        calls: dict[int, OpenCall] = {}
        end: TurnEnd | None = None
        model = self.provider.upstream_name(self.job.command.model)
        async with aclosing(self.turns.turn(request, items, model=model)) as events:
            async for event in events:
                if isinstance(event, TurnEnd):
                    end = event
                    continue
                try:
                    self._forward(event, base, calls)
                except MALFORMED as error:
                    raise UpstreamError("the provider sent an event of another shape") from error
        if end is None:
            raise UpstreamError("the provider's turn ended without an end")
        for index, item in enumerate(end.output):
            call = calls.get(index)
            if call is not None:
                call.call_id = item.get("call_id")
            self._output.append(item if call is None else call.item)
        return end, list(calls.values()), end.output

    def _forward(self, event: Event, base: int, calls: dict[int, OpenCall]) -> None:
        index = event.get("output_index")
        if index is None:
            self.writer.emit(event)
            return
        event["output_index"] = base + index
        kind = event["type"]
        item = event.get("item")
        if self.seal is not None and item is not None and kind == "response.output_item.done":
            self.seal(item)
        if (
            kind == "response.output_item.added"
            and item is not None
            and item.get("type") == "function_call"
            and (target := self.plan.mcp.get(str(item.get("name")))) is not None
        ):
            call = calls[index] = opened(target, base + index, self.new_id("mcp"))
            self._event(kind, output_index=call.output_index, item=dict(call.item))
            tell(self.writer, call, "response.mcp_call.in_progress")
        elif (known := calls.get(index)) is None:
            self.writer.emit(event)
        elif kind == "response.function_call_arguments.delta":
            tell(self.writer, known, "response.mcp_call_arguments.delta", delta=event["delta"])
        elif kind == "response.function_call_arguments.done":
            arguments = known.item["arguments"] = event["arguments"]
            tell(self.writer, known, "response.mcp_call_arguments.done", arguments=arguments)

    async def _run_calls(self, calls: list[OpenCall]) -> None:
        """Run the calls side by side; their outputs are carried to the next turn.

        Those above the request's limit are not made.
        """
        limit = self.job.request.get("max_tool_calls")
        within = len(calls) if limit is None else max(0, limit - self._calls_made)
        made = calls[:within]
        results = await asyncio.gather(
            *(self._result(call, position) for position, call in enumerate(made, self._calls_made))
        )
        self._calls_made += len(made)
        results += [(OVER_LIMIT, True)] * (len(calls) - len(made))
        outputs: list[Item] = []
        for call, (text, failed) in zip(calls, results, strict=True):
            close(self.writer, call, text, failed=failed)
            outputs.append(call.answer(text))
        self._carried = [*self._carried, *outputs]
        if self._limit_reached():
            self._changed["tool_choice"] = "none"

    async def _result(self, call: OpenCall, position: int) -> tuple[str, bool]:
        told = result_told(self.progress.earlier.item(call.output_index))
        if told is not None:
            return told
        await self.make_sure()
        return result_of(await self.call_tool(call.at(position)))

    def _finish(self, response: Response, end: TurnEnd) -> Response:
        response["status"] = end.status
        response["output"] = self._output
        response["usage"] = self._usage
        response["incomplete_details"] = end.incomplete_details
        response["error"] = end.error
        if end.service_tier:
            response["service_tier"] = end.service_tier
        return response


def _unforced(choice: Any) -> Any:
    """Return what stays of a `tool_choice` after the first turn.

    A forced choice would keep the model from ever answering; which tools are allowed still holds.
    """
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": "auto"}
    return choice if choice in (None, "auto", "none") else "auto"
