"""The official Python client: `pip install openai`."""

from __future__ import annotations

import os

from openai import OpenAI
from openai.types.responses import Response, ToolParam
from openai.types.responses.response_input_param import ResponseInputParam
from pydantic import BaseModel

from tests.e2e.clients.programs.report import PIXEL, Told, tell

client = OpenAI(max_retries=0)
model = os.environ["MODEL"]


class Trip(BaseModel):
    city: str
    days: int


def function(name: str) -> ToolParam:
    city = {"type": "string"}
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"city": city},
        "required": ["city"],
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "parameters": schema, "strict": True}


def plain() -> Told:
    return {"text": client.responses.create(model=model, input="say: hello world").output_text}


def stream() -> Told:
    with client.responses.stream(model=model, input="tokens: 20") as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    return {"text": final.output_text, "deltas": len(deltas), "joined": "".join(deltas)}


def tools() -> Told:
    calls, deltas = [], 0
    asked: ResponseInputParam = [
        {
            "role": "user",
            "content": 'call: get_weather {"city": "Paris"} ; then: get_time {"city": "Paris"}',
        }
    ]
    previous = None
    for _ in range(5):
        with client.responses.stream(
            model=model,
            input=asked,
            previous_response_id=previous,
            tools=[function("get_weather"), function("get_time")],
        ) as events:
            deltas += sum("delta" in event.type for event in events)
            answer: Response = events.get_final_response()
        previous = answer.id
        asked = []
        for item in answer.output:
            if item.type == "function_call":
                calls.append([item.name, item.arguments])
                output = {"get_weather": "sunny", "get_time": "noon"}[item.name]
                asked.append(
                    {"type": "function_call_output", "call_id": item.call_id, "output": output}
                )
        if not asked:
            break
    return {"text": answer.output_text, "calls": calls, "deltas": deltas}


def follow_up() -> Told:
    first = client.responses.create(model=model, input="say: one")
    second = client.responses.create(
        model=model, input="script:recall", previous_response_id=first.id
    )
    return {"text": second.output_text}


def structured() -> Told:
    answer = client.responses.parse(model=model, input="Plan a trip.", text_format=Trip)
    assert answer.output_parsed is not None
    return {"value": answer.output_parsed.model_dump()}


def image() -> Told:
    answer = client.responses.create(
        model=model,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
                ],
            }
        ],
    )
    return {"text": answer.output_text}


def wrong_model() -> Told:
    return {"text": client.responses.create(model="no-such-model", input="hi").output_text}


def wrong_key() -> Told:
    stranger = client.with_options(api_key="sk-antiphon-wrong")
    return {"text": stranger.responses.create(model=model, input="hi").output_text}


def refused() -> Told:
    return {"text": client.responses.create(model=model, input="fault:400").output_text}


def broken() -> Told:
    asked = "script:failed rate_limit_exceeded"
    for event in client.responses.create(model=model, input=asked, stream=True):
        if event.type == "response.failed" and event.response.error is not None:
            return {"failed": event.response.error.code}
    return {"failed": None}


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
    broken=broken,
)
