"""Clients in common use, unchanged: each does what its users do, with either kind of provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.e2e.clients.running import Launcher, Told
from tests.e2e.parts import DIALECTS
from tests.upstream import UpstreamProcess

PROGRAMS = {
    "openai_python": "python",
    "openai_agents": "python",
    "langchain_agent": "python",
    "openai_node": "node",
    "ai_sdk": "node",
}
MODELS = [DIALECTS["responses"], DIALECTS["chat"]]
# How many programs start at once: each is busy for a second or two before it asks anything.
AT_ONCE = 2
WORDS = " ".join(f"w{number}" for number in range(20))
EXPECTED: dict[str, Told] = {
    "plain": {"text": "hello world"},
    "stream": {"text": WORDS, "joined": WORDS, "deltas": 20},
    "follow_up": {"text": "say: one|one"},
    "structured": {"value": {"city": "text", "days": 1}},
    "image": {"text": "echo: What is this? [+1]"},
}
ERRORS = {
    "openai_python": ("NotFoundError", "AuthenticationError", "BadRequestError"),
    "openai_agents": ("NotFoundError", "AuthenticationError", "BadRequestError"),
    "langchain_agent": (
        "OpenAIModelNotFoundError",
        "OpenAIAuthenticationError",
        "OpenAIInvalidRequestError",
    ),
    "openai_node": ("NotFoundError", "AuthenticationError", "BadRequestError"),
    "ai_sdk": ("APICallError", "APICallError", "APICallError"),
}
Runs = dict[tuple[str, str], Told]
# AI SDK and the agents' toolkits run the tools themselves and tell their arguments read.
RAW_ARGUMENTS = {"openai_python", "openai_node"}


@pytest.fixture(scope="session")
async def runs(launcher: Launcher, upstream_process: UpstreamProcess) -> Runs:
    """What every program told with every kind of provider."""
    places = asyncio.Semaphore(AT_ONCE)
    upstream_process.reset()

    async def one(program: str, model: str) -> Told:
        async with places:
            start = launcher.python if PROGRAMS[program] == "python" else launcher.node
            return await start(program, model)

    pairs = [(program, model) for program in PROGRAMS for model in MODELS]
    async with asyncio.TaskGroup() as group:
        tasks = {pair: group.create_task(one(*pair)) for pair in pairs}
    return {pair: task.result() for pair, task in tasks.items()}


every_program = pytest.mark.parametrize("program", PROGRAMS)
every_model = pytest.mark.parametrize("model", MODELS)


@every_model
@every_program
@pytest.mark.parametrize("scenario", EXPECTED)
async def test_a_client_gets_what_it_asked_for(
    runs: Runs, program: str, model: str, scenario: str
) -> None:
    assert runs[program, model][scenario] == EXPECTED[scenario]


@every_model
@every_program
async def test_a_client_runs_its_tools_in_two_steps_while_it_streams(
    runs: Runs, program: str, model: str
) -> None:
    told = runs[program, model]["tools"]

    city: Any = '{"city": "Paris"}' if program in RAW_ARGUMENTS else "Paris"
    assert told["calls"] == [["get_weather", city], ["get_time", city]]
    assert told["text"] == "get_weather -> sunny\nget_time -> noon"
    assert told["deltas"] > len(told["calls"])


@every_model
async def test_agents_run_their_tools_over_a_websocket(runs: Runs, model: str) -> None:
    told = runs["openai_agents", model]
    assert told["websocket"] == told["tools"]


@every_model
@every_program
async def test_an_error_is_one_of_the_client_s_own(runs: Runs, program: str, model: str) -> None:
    told = runs[program, model]
    raised = [told[name] for name in ("wrong_model", "wrong_key", "refused")]

    assert tuple(error["error"] for error in raised) == ERRORS[program]
    assert [error["status"] for error in raised] == [404, 401, 400]
    assert "no-such-model" in raised[0]["message"]


@every_model
@pytest.mark.parametrize("program", sorted(RAW_ARGUMENTS))
async def test_a_stream_that_fails_midway_tells_why(runs: Runs, program: str, model: str) -> None:
    assert runs[program, model]["broken"] == {"failed": "rate_limit_exceeded"}
