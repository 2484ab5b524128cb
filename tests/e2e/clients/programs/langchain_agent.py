"""LangChain with the Responses API: `pip install langchain langchain-openai`."""

from __future__ import annotations

import os

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.e2e.clients.programs.report import PIXEL, Told, tell

name = os.environ["MODEL"]
model = ChatOpenAI(model=name, use_responses_api=True, max_retries=0)
calls: list[list[str]] = []


class Trip(BaseModel):
    """A trip."""

    city: str
    days: int


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    calls.append(["get_weather", city])
    return "sunny"


def get_time(city: str) -> str:
    """Tell the time in a city."""
    calls.append(["get_time", city])
    return "noon"


def plain() -> Told:
    return {"text": model.invoke("say: hello world").text}


def stream() -> Told:
    deltas = [chunk.text for chunk in model.stream("tokens: 20") if chunk.text]
    return {"text": "".join(deltas), "deltas": len(deltas), "joined": "".join(deltas)}


def tools() -> Told:
    agent = create_agent(model, [get_weather, get_time], system_prompt="Help.")
    asked = 'call: get_weather {"city": "Paris"} ; then: get_time {"city": "Paris"}'
    deltas, texts = 0, []
    for chunk, _ in agent.stream(
        {"messages": [{"role": "user", "content": asked}]}, stream_mode="messages"
    ):
        deltas += 1
        if chunk.type == "AIMessageChunk":
            texts.append(chunk.text)
    return {"text": "".join(texts), "calls": calls, "deltas": deltas}


def follow_up() -> Told:
    first = model.invoke("say: one")
    previous = first.response_metadata["id"]
    return {"text": model.invoke("script:recall", previous_response_id=previous).text}


def structured() -> Told:
    typed = model.with_structured_output(Trip, method="json_schema")
    return {"value": typed.invoke("Plan a trip.").model_dump()}


def image() -> Told:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "url": PIXEL},
    ]
    return {"text": model.invoke([{"role": "user", "content": content}]).text}


def wrong_model() -> Told:
    stranger = ChatOpenAI(model="no-such-model", use_responses_api=True, max_retries=0)
    return {"text": stranger.invoke("hi").text}


def wrong_key() -> Told:
    key = "sk-antiphon-wrong"
    stranger = ChatOpenAI(model=name, use_responses_api=True, max_retries=0, api_key=key)
    return {"text": stranger.invoke("hi").text}


def refused() -> Told:
    return {"text": model.invoke("fault:400").text}


tell(
    plain=plain,
    stream=stream,
    tools=tools,
    follow_up=follow_up,
    structured=structured,
    image=image,
    wrong_model=wrong_model,
    wrong_key=wrong_key,
    refused=refused,
)
