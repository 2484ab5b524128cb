"""What intake refuses: in the API's own shape, and before anything is on a topic."""

from __future__ import annotations

from io import BytesIO
from typing import Any, NamedTuple

import orjson
import pytest
from aiohttp import ClientSession

from contracts.topics import RESPONSES_COMMANDS
from tests.e2e.conftest import MAX_BODY_BYTES
from tests.e2e.parts import DIALECTS
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]


class Case(NamedTuple):
    """A body and the error that it must be answered with."""

    name: str
    body: bytes
    status: int = 400
    code: str | None = None
    param: str | None = None


def body(**changes: Any) -> bytes:
    return orjson.dumps({"model": MODEL, "input": "hi", **changes})


def wrong(param: str, value: Any, code: str) -> Case:
    return Case(f"{param}={str(value)[:20]}", body(**{param: value}), 400, code, param)


CASES = [
    Case("empty", b"", 400, "invalid_json"),
    Case("half a body", body()[:-3], 400, "invalid_json"),
    Case("no UTF-8", b'{"model": "\xff"}', 400, "invalid_json"),
    Case("endlessly nested", b'{"input": ' + b"[" * 5000, 400, "invalid_json"),
    Case("not an object", b"[1, 2]", 400, None),
    Case("null", b"null", 400, None),
    Case("no model", b'{"input": "hi"}', 400, "missing_required_parameter", "model"),
    Case("no input", orjson.dumps({"model": MODEL}), 400, "missing_required_parameter", "input"),
    Case("unknown model", body(model="no-such"), 404, "model_not_found", "model"),
    Case("too large", body(input="x" * MAX_BODY_BYTES), 413, "request_too_large"),
    wrong("model", 7, "invalid_type"),
    wrong("model", "", "invalid_value"),
    wrong("input", 7, "invalid_type"),
    wrong("instructions", ["be brief"], "invalid_type"),
    wrong("stream", "yes", "invalid_type"),
    wrong("store", 1, "invalid_type"),
    wrong("temperature", "hot", "invalid_type"),
    wrong("temperature", 2.5, "invalid_value"),
    wrong("top_p", -1, "invalid_value"),
    wrong("top_logprobs", 21, "invalid_value"),
    wrong("max_output_tokens", 0, "invalid_value"),
    wrong("max_output_tokens", 1.5, "invalid_type"),
    wrong("tools", "all of them", "invalid_type"),
    wrong("truncation", "some", "invalid_value"),
    wrong("service_tier", "best", "invalid_value"),
    wrong("metadata", {str(n): "x" for n in range(17)}, "invalid_value"),
    wrong("metadata", "none", "invalid_type"),
    wrong("previous_response_id", 1, "invalid_type"),
    wrong("previous_response_id", "resp_unknown", "previous_response_not_found"),
    Case(
        "a completion window",
        body(background_options={"completion_window": "2h"}),
        400,
        "unsupported_parameter",
        "background_options.completion_window",
    ),
    Case("a tool without type", body(tools=[{}]), 400, "missing_required_parameter"),
    Case(
        "approvals",
        body(tools=[{"type": "mcp", "server_label": "everything", "require_approval": "always"}]),
        400,
        "unsupported_parameter",
        "tools[0].require_approval",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_bad_input_is_explained_and_reaches_no_topic(
    http: ClientSession, topics: Topics, case: Case
) -> None:
    before = await topics.ends(RESPONSES_COMMANDS.name)
    headers = {"content-type": "application/json"}
    async with http.post("/v1/responses", data=BytesIO(case.body), headers=headers) as answer:
        assert answer.status == case.status
        assert answer.headers["x-request-id"]
        content = await answer.json()

    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["message"]
    assert content["error"]["type"] == "invalid_request_error"
    assert content["error"]["code"] == case.code
    if case.param is not None:
        assert content["error"]["param"] == case.param
    assert await topics.ends(RESPONSES_COMMANDS.name) == before


async def test_a_body_of_unknown_length_is_bounded_too(http: ClientSession, topics: Topics) -> None:
    async def endless() -> Any:
        yield b'{"model": "'
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b"x" * 65536

    before = await topics.ends(RESPONSES_COMMANDS.name)
    async with http.post("/v1/responses", data=endless()) as answer:
        assert answer.status == 413
    assert await topics.ends(RESPONSES_COMMANDS.name) == before


@pytest.mark.parametrize("dialect", ["responses", "chat"])
async def test_a_tool_server_that_does_not_exist_is_named(
    http: ClientSession, upstream: UpstreamProcess, dialect: str
) -> None:
    tools = [{"type": "mcp", "server_label": "no-such-server"}]
    request = {"model": DIALECTS[dialect], "input": "hi", "tools": tools}
    async with http.post("/v1/responses", json=request) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["code"], error["param"]) == ("mcp_server_not_found", "tools[0].server_label")
    assert "no-such-server" in error["message"]


async def test_a_tool_that_a_chat_provider_can_t_run_is_refused(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    request = {"model": DIALECTS["chat"], "input": "hi", "tools": [{"type": "web_search"}]}
    async with http.post("/v1/responses", json=request) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "tools[0].type")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses/resp_unknown", 404),
        ("DELETE", "/v1/responses/resp_unknown", 404),
        ("GET", "/v1/responses/resp_unknown?stream=true", 404),
        ("GET", "/v1/responses/resp_unknown?stream=perhaps", 400),
        ("GET", "/v1/responses/resp_unknown?stream=true&starting_after=x", 400),
        ("GET", "/v1/responses/resp_unknown?stream=true&starting_after=%C2%B2", 400),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/artifacts/art_unknown", 404),
        ("GET", "/v1/costs?group_by=weather", 400),
    ],
)
async def test_every_other_refusal_has_the_same_shape(
    http: ClientSession, method: str, path: str, status: int
) -> None:
    async with http.request(method, path) as answer:
        assert answer.status == status
        assert answer.headers["x-request-id"]
        assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
