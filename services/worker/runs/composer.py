"""Puts model turns and tool calls together into one response: the tool loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from contracts.providers import ProviderConfig
from contracts.tools import ToolResultV1
from services.worker.chat.turn import TurnEnd
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
from services.worker.runs.writer import EventWriter
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan

_OVER_LIMIT = "The call was not made: the response's max_tool_calls was reached."

CallTool = Callable[[McpCall], Awaitable[ToolResultV1]]


@dataclass
class _PendingCall:
    """A tool call of the turn at hand, as the model made it and as the client sees it."""

    output_index: int
    item: Item
    function_call: Item | None = None


@dataclass
class Composer:
    """Composes one response. `new_id` makes item ids; `call_tool` runs one MCP call; `seal` writes
    into finished items what the client shall keep for us.
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
    _output: list[Item] = field(default_factory=list)
    _usage: dict[str, Any] | None = None
    _calls_made: int = 0

    async def run(self, response: Response) -> Response:
        """Return the finished Response, built upon its skeleton; raises `UpstreamError`."""
        request = self._turn_request()
        names = self.plan.names()
        items = mcp_history_as_functions(self.job.complete_input(), names)
        self._list_tools(items_before=self.job.input_items())
        for _ in range(self.max_turns):
            end, calls, originals = await self._turn(request, items)
            self._usage = add_usage(self._usage, end.usage)
            if end.status != "completed":
                self._cut_off(calls)
                return self._finish(response, end)
            if not calls:
                return self._finish(response, end)
            results = await self._run_calls(calls)
            items = [*items, *originals, *results]
            waiting_for_client = any(
                item.get("type") in ("function_call", "custom_tool_call") for item in self._output
            )
            if waiting_for_client:
                return self._finish(response, end)
            if "tool_choice" in request:
                request = {**request, "tool_choice": _unforced(request["tool_choice"])}
            if self._limit_reached():
                request = {**request, "tool_choice": "none"}
        raise UpstreamError(
            f"the response took more than {self.max_turns} model turns", retryable=False
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

    def _cut_off(self, calls: list[_PendingCall]) -> None:
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
                "id": self.new_id("mcpl"),
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
    ) -> tuple[TurnEnd, list[_PendingCall], list[Item]]:
        base = len(self._output)
        calls: dict[int, _PendingCall] = {}
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
                call.function_call = item
            self._output.append(item if call is None else call.item)
        return end, list(calls.values()), end.output

    def _forward(self, event: Event, base: int, calls: dict[int, _PendingCall]) -> None:
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
            calls[index] = self._open_call(target, base + index)
        elif (call := calls.get(index)) is None:
            self.writer.emit(event)
        elif kind == "response.function_call_arguments.delta":
            self._of_call(call, "response.mcp_call_arguments.delta", delta=event["delta"])
        elif kind == "response.function_call_arguments.done":
            call.item["arguments"] = event["arguments"]
            self._of_call(call, "response.mcp_call_arguments.done", arguments=event["arguments"])

    def _open_call(self, target: tuple[str, str], output_index: int) -> _PendingCall:
        label, tool = target
        item: Item = {
            "id": self.new_id("mcp"),
            "type": "mcp_call",
            "status": "in_progress",
            "approval_request_id": None,
            "arguments": "",
            "error": None,
            "name": tool,
            "output": None,
            "server_label": label,
        }
        call = _PendingCall(output_index, item)
        self._event("response.output_item.added", output_index=output_index, item=dict(item))
        self._of_call(call, "response.mcp_call.in_progress")
        return call

    def _of_call(self, call: _PendingCall, kind: str, **fields: Any) -> None:
        self._event(kind, output_index=call.output_index, item_id=call.item["id"], **fields)

    async def _run_calls(self, calls: list[_PendingCall]) -> list[Item]:
        """Run the calls side by side; return their outputs as the next turn's input items.

        Those above the request's limit are not made.
        """
        limit = self.job.request.get("max_tool_calls")
        within = len(calls) if limit is None else max(0, limit - self._calls_made)
        made = [
            McpCall(
                server_label=call.item["server_label"],
                tool=call.item["name"],
                arguments=call.item["arguments"] or "{}",
                position=position,
            )
            for position, call in enumerate(calls[:within], self._calls_made)
        ]
        self._calls_made += len(made)
        results = await asyncio.gather(*(self.call_tool(call) for call in made))
        outputs: list[Item] = []
        for call, result in zip_longest(calls, results):
            failure = _OVER_LIMIT if result is None else _failure_of(result)
            text = failure if failure is not None else result.output
            self._close_call(call, text, failed=failure is not None)
            outputs.append(
                {
                    "type": "function_call_output",
                    "call_id": (call.function_call or {}).get("call_id"),
                    "output": text,
                }
            )
        return outputs

    def _close_call(self, call: _PendingCall, text: str, *, failed: bool) -> None:
        if failed:
            content = [{"type": "text", "text": text}]
            error = {"type": "mcp_tool_execution_error", "content": content}
            call.item.update(status="failed", error=error)
            self._of_call(call, "response.mcp_call.failed")
        else:
            call.item.update(status="completed", output=text)
            self._of_call(call, "response.mcp_call.completed")
        self._event("response.output_item.done", output_index=call.output_index, item=call.item)

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


def _failure_of(result: ToolResultV1) -> str | None:
    if result.error is None:
        return None
    return result.message or result.output or f"the tool call failed: {result.error}"
