"""Jobs, providers that are scripted in memory, and streams that remember what was written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from contracts.packs import Entry, Flag
from contracts.principal import Principal
from contracts.providers import Dialect, ProviderConfig
from contracts.responses import ResponseFinishedV1, RunResponseV1
from contracts.tools import McpServerDiscoveredV1, McpTool, ToolResultV1
from services.worker.chat.turn import TurnEnd
from services.worker.domain import Event, Item, Job
from services.worker.errors import UpstreamError
from services.worker.outbox import OutStream, _Lane
from services.worker.providers.client import UpstreamClient
from services.worker.sse import data_of
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan, plan_tools
from tests.upstream import responses
from tests.upstream.dialogue import from_responses
from tests.upstream.language import parse
from tests.upstream.scripts import answer_for

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OWNER = Principal(project="proj_a", key_id="key_a")
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class FixedClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def ids() -> Callable[[str], str]:
    """Return a maker of ids that count up."""
    count = 0

    def make(prefix: str) -> str:
        nonlocal count
        count += 1
        return f"{prefix}_{count}"

    return make


def job(
    *,
    attempt: int = 1,
    stream: bool = True,
    history: list[Item] | None = None,
    background: bool = False,
    **request: Any,
) -> Job:
    body = {"model": "gpt-5.1", "input": "hello", "stream": stream, **request}
    command = RunResponseV1(
        response_id="resp_ours",
        principal=OWNER,
        model="gpt-5.1",
        accepted_at=NOW,
        events_partition=0,
        stream=stream,
        background=background,
    )
    return Job(command, attempt, body, history or [])


class Written(OutStream):
    """Remembers what a run writes, as (flags, status, payload)."""

    def __init__(self) -> None:
        async def send(_: bytes) -> None: ...

        async def store(_: str, __: bytes) -> None: ...

        lane = _Lane(send, store, tick_seconds=0, bound_bytes=1 << 20)
        super().__init__(lane, "resp_ours", 1)
        self.parts: list[tuple[int, int, bytes]] = []
        self.waited = 0

    def write(self, payload: bytes, *, flags: int = Flag.NONE, status: int = 200) -> None:
        self.parts.append((int(flags), status, payload))

    async def room(self) -> None: ...

    async def fence(self) -> None: ...

    async def sent(self) -> None:
        self.waited += 1

    @property
    def stream(self) -> bytes:
        return b"".join(payload for _, _, payload in self.parts)

    @property
    def events(self) -> list[Event]:
        return events_of(self.stream)

    @property
    def log(self) -> list[tuple[Entry, bytes]]:
        """What stands on the log then."""
        return [
            (Entry(b"resp_ours", 1, index, payload, flags, status), payload)
            for index, (flags, status, payload) in enumerate(self.parts)
        ]


def events_of(stream: bytes) -> list[Event]:
    """Return the JSON of every event."""
    found: list[Event] = []
    for frame in stream.split(b"\n\n"):
        data = data_of(frame)
        if data and data != b"[DONE]":
            found.append(orjson.loads(data))
    return found


def kinds(events: Iterable[Event]) -> list[str]:
    return [str(event["type"]).removeprefix("response.") for event in events]


def check_stream(events: list[Event], *, begins_at: int = 0) -> None:
    """Check shapes against the openai package's own models, and that no number is missing."""
    for event in events:
        _EVENT.validate_python(event)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(begins_at, begins_at + len(events)))


def check_response(response: dict[str, Any]) -> None:
    Response.model_validate(response)


def script_events(text: str, **parameters: Any) -> list[Event]:
    """Return the events a Responses-native provider would send."""
    body = {"model": "gpt-5.1", "input": text, **parameters}
    dialogue = from_responses(body)
    turn = responses.render(answer_for(dialogue, parse(text)), dialogue, body, "resp_theirs")
    return turn.events


def as_sse(events: Iterable[Event]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
        for event in events
    )


@dataclass
class Provider(UpstreamClient):
    """A provider's client that answers from a list: bytes of a stream, objects or errors."""

    answers: list[Any]
    config: ProviderConfig = field(
        default_factory=lambda: ProviderConfig(name="first", base_url="http://nowhere")
    )
    asked: list[dict[str, Any]] = field(default_factory=list)
    cut: int = 1 << 20
    streams: bool = True

    def post(self, path: str, body: bytes, *, whole: bool = False, headers: Any = None) -> Any:
        return self._answer(orjson.loads(body))

    def get(self, path: str, query: Any) -> Any:
        return self._answer(query)

    @asynccontextmanager
    async def _answer(self, asked: Any) -> AsyncIterator[Any]:
        self.asked.append(asked)
        answer = self.answers.pop(0)
        if isinstance(answer, UpstreamError):
            raise answer
        pieces = answer if isinstance(answer, list) else [answer]

        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces:
                if isinstance(piece, UpstreamError):
                    raise piece
                for at in range(0, len(piece), self.cut):
                    yield piece[at : at + self.cut]

        yield SimpleNamespace(streams=self.streams, chunks=chunks)

    async def read_json(self, path: str, body: bytes, *, headers: Any = None) -> dict[str, Any]:
        self.asked.append(orjson.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, UpstreamError):
            raise answer
        return dict(answer)


@dataclass
class ScriptedTurns:
    """Model turns from a list: each is a list of events, an end, or an error in between."""

    turns: list[list[Event | TurnEnd | Exception]]
    asked: list[tuple[dict[str, Any], list[Item]]] = field(default_factory=list)

    async def turn(
        self, request: dict[str, Any], items: list[Item], *, model: str
    ) -> AsyncGenerator[Event | TurnEnd, None]:
        self.asked.append((request, items))
        for step in self.turns.pop(0):
            if isinstance(step, Exception):
                raise step
            yield dict(step) if isinstance(step, dict) else step


def text_turn(text: str, *, index: int = 0, item_id: str = "msg_1") -> list[Any]:
    """Return the events of a message and its end."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": item_id, "type": "message", "role": "assistant", "status": "completed"}
    place = {"output_index": index, "item_id": item_id, "content_index": 0}
    begun = {**item, "status": "in_progress", "content": []}
    done = {**item, "content": [part]}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": done},
        TurnEnd("completed", [done], usage=used(10, 5)),
    ]


def call_turn(*calls: tuple[str, str], status: Any = "completed") -> list[Any]:
    """Return the events of function calls (name, arguments) and the end of their turn."""
    steps: list[Any] = []
    output: list[Item] = []
    for index, (name, arguments) in enumerate(calls):
        item = {
            "id": f"fc_{name}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{name}_{index}",
            "name": name,
            "arguments": arguments,
        }
        place = {"output_index": index, "item_id": item["id"]}
        begun = {**item, "status": "in_progress", "arguments": ""}
        steps += [
            {"type": "response.output_item.added", "output_index": index, "item": begun},
            {"type": "response.function_call_arguments.delta", **place, "delta": arguments},
            {
                "type": "response.function_call_arguments.done",
                **place,
                "name": name,
                "arguments": arguments,
            },
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]
        output.append(item)
    details = {"reason": "max_output_tokens"} if status == "incomplete" else None
    steps.append(TurnEnd(status, output, usage=used(7, 3), incomplete_details=details))
    return steps


def used(read: int, written: int) -> dict[str, Any]:
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


SERVER = McpServerDiscoveredV1(
    server_label="srv",
    transport="stdio",
    status="ready",
    tools=[
        McpTool(name="echo", input_schema={"type": "object"}),
        McpTool(name="add", input_schema={}),
    ],
)
MCP_TOOL = {"type": "mcp", "server_label": "srv"}


def result(call: McpCall, *, output: str = "", error: Any = None) -> ToolResultV1:
    return ToolResultV1(
        call_id=call.call_id("resp_ours"),
        response_id="resp_ours",
        principal=OWNER,
        executor="mcp_broker",
        server_label=call.server_label,
        tool=call.tool,
        output=output,
        error=error,
        message="it broke" if error else None,
        latency_ms=1.0,
    )


@dataclass
class LocalTools:
    """The tools of one server, answering at once; `failing` tools fail."""

    failing: frozenset[str] = frozenset()
    made: list[McpCall] = field(default_factory=list)

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        return plan_tools(
            job.request.get("tools") or [],
            hosted=provider.hosted_tools,
            dialect=provider.dialect,
            server=lambda label: SERVER if label == "srv" else None,
        )

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        self.made.append(call)
        if call.tool in self.failing:
            return result(call, error="tool_error")
        return result(call, output=f"{call.tool}({call.arguments})")


@dataclass
class StatedFacts:
    """Remembers the facts."""

    started_jobs: list[str] = field(default_factory=list)
    outcomes: list[tuple[ResponseFinishedV1, dict[str, Any]]] = field(default_factory=list)

    async def started(self, job: Job) -> None:
        self.started_jobs.append(job.response_id)

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        self.outcomes.append((fact, orjson.loads(response)))


def config(name: str, dialect: Dialect = "responses", *, retries: int = 0) -> ProviderConfig:
    return ProviderConfig(name=name, dialect=dialect, base_url="http://nowhere", retries=retries)
