"""The OpenAI Agents SDK: `pip install openai-agents`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    RunResultStreaming,
    function_tool,
    responses_websocket_session,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.e2e.clients.programs.report import PIXEL, Told, tell

set_tracing_disabled(disabled=True)
name = os.environ["MODEL"]
model = OpenAIResponsesModel(name, AsyncOpenAI(max_retries=0))
calls: list[list[str]] = []
TASK = 'call: get_weather {"city": "Paris"} ; then: get_time {"city": "Paris"}'


class Trip(BaseModel):
    city: str
    days: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    calls.append(["get_weather", city])
    return "sunny"


@function_tool
def get_time(city: str) -> str:
    """The time in a city."""
    calls.append(["get_time", city])
    return "noon"


async def plain() -> Told:
    result = await Runner.run(Agent(name="Plain", model=model), "say: hello world")
    return {"text": result.final_output}


async def stream() -> Told:
    result = Runner.run_streamed(Agent(name="Streaming", model=model), "tokens: 20")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return {"text": result.final_output, "deltas": len(deltas), "joined": "".join(deltas)}


async def read(result: RunResultStreaming) -> Told:
    calls.clear()
    deltas = 0
    async for event in result.stream_events():
        deltas += event.type == "raw_response_event" and "delta" in event.data.type
    return {"text": result.final_output, "calls": list(calls), "deltas": deltas}


async def tools() -> Told:
    agent = Agent(name="Tools", model=model, tools=[get_weather, get_time], instructions="Help.")
    return await read(Runner.run_streamed(agent, TASK))


async def websocket() -> Told:
    agent = Agent(name="Tools", model=name, tools=[get_weather, get_time], instructions="Help.")
    async with responses_websocket_session() as session:
        return await read(session.run_streamed(agent, TASK))


async def follow_up() -> Told:
    agent = Agent(name="Twice", model=model)
    first = await Runner.run(agent, "say: one")
    second = await Runner.run(agent, "script:recall", previous_response_id=first.last_response_id)
    return {"text": second.final_output}


async def structured() -> Told:
    result = await Runner.run(Agent(name="Typed", model=model, output_type=Trip), "Plan a trip.")
    return {"value": result.final_output.model_dump()}


async def image() -> Told:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
    ]
    asked = [{"role": "user", "content": content}]
    result = await Runner.run(Agent(name="Seeing", model=model), asked)
    return {"text": result.final_output}


async def wrong_model() -> Told:
    stranger = OpenAIResponsesModel("no-such-model", AsyncOpenAI(max_retries=0))
    result = await Runner.run(Agent(name="Wrong", model=stranger), "hi")
    return {"text": result.final_output}


async def wrong_key() -> Told:
    stranger = AsyncOpenAI(max_retries=0, api_key="sk-antiphon-wrong")
    result = await Runner.run(Agent(name="Wrong", model=OpenAIResponsesModel(name, stranger)), "hi")
    return {"text": result.final_output}


async def refused() -> Told:
    result = await Runner.run(Agent(name="Refused", model=model), "fault:400")
    return {"text": result.final_output}


def run(scenario: Callable[[], Awaitable[Told]]) -> Callable[[], Told]:
    async def whole() -> Told:
        return await scenario()

    return lambda: runner.run(whole())


with asyncio.Runner() as runner:
    tell(
        plain=run(plain),
        stream=run(stream),
        tools=run(tools),
        websocket=run(websocket),
        follow_up=run(follow_up),
        structured=run(structured),
        image=run(image),
        wrong_model=run(wrong_model),
        wrong_key=run(wrong_key),
        refused=run(refused),
    )
