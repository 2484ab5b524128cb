"""Everything a provider can say, as JSON and as a stream, from providers of both dialects."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession
from openai.types.responses import ResponseStreamEvent

from tests.e2e.cases.asking import CHAT, NATIVE, Case, Outcome, ask_all, every_way
from tests.e2e.cases.samples import type_of, variants
from tests.e2e.cases.strict import assert_response, assert_stream
from tests.upstream import UpstreamProcess
from tests.upstream.scripts import HOSTED, SCRIPTS

# A chat model has no such output.
NATIVE_ONLY = {"custom_tool", "everything", *HOSTED}
FAILING = {"failed", "failed_early", "error"}
STATUS = {
    "incomplete": "incomplete",
    "content_filter": "incomplete",
    "failed": "failed",
    "failed_early": "failed",
    "error": "failed",
}
TOOLS = [
    {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}
    for name in ("get_weather", "get_time")
]
CASES = [
    case
    for script in sorted({*SCRIPTS, *HOSTED})
    for case in every_way(
        script,
        f"script:{script}",
        {"tools": TOOLS} if "call" in script else {},
        [NATIVE] if script in NATIVE_ONLY | FAILING else [NATIVE, CHAT],
    )
]
# An error of the provider has a status of its own when nothing was streamed yet.
TOLD = [case for case in CASES if case.name != "error" or case.stream]


@pytest.fixture(scope="module")
async def outcomes(http: ClientSession, upstream_process: UpstreamProcess) -> dict[str, Outcome]:
    upstream_process.reset()
    return await ask_all(http, upstream_process, CASES)


@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.id)
async def test_what_a_provider_says_arrives_whole_and_is_kept(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    outcome = outcomes[case.id]

    assert outcome.status == 200
    if case.stream:
        assert_stream(outcome.events)
    assert_response(outcome.response)
    assert outcome.response["status"] == STATUS.get(case.name, "completed")
    assert outcome.response["model"] == case.model
    assert outcome.stored == outcome.response


@pytest.mark.parametrize("name", sorted({case.name for case in TOLD}))
async def test_json_and_a_stream_end_in_the_same_response(
    outcomes: dict[str, Outcome], name: str
) -> None:
    for model in (NATIVE, CHAT):
        same = [
            outcomes[case.id].response for case in TOLD if (case.name, case.model) == (name, model)
        ]
        kinds = [[item["type"] for item in response["output"]] for response in same]
        assert all(kind == kinds[0] for kind in kinds)
        assert all(response["usage"] == same[0]["usage"] for response in same)


async def test_a_provider_s_error_is_told_as_a_status_or_before_the_end(
    outcomes: dict[str, Outcome],
) -> None:
    answered, streamed = (outcomes[case.id] for case in CASES if case.name == "error")
    assert (answered.status, answered.body["error"]["type"]) == (502, "server_error")
    error, end = streamed.events[-2:]
    assert error["type"] == "error"
    assert end["type"] == "response.failed"
    assert end["response"]["error"]["message"] == error["message"]


async def test_every_event_type_of_the_package_came_through(outcomes: dict[str, Outcome]) -> None:
    told = {event["type"] for outcome in outcomes.values() for event in outcome.events}
    assert told >= {type_of(variant) for variant in variants(ResponseStreamEvent)}
