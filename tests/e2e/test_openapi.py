"""The OpenAPI document: schemathesis asks whatever it allows, and everything else too."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from contracts.responses import ResponseFinishedV1, RunResponseV1
from contracts.topics import RESPONSES_COMMANDS, RESPONSES_LIFECYCLE
from tests.e2e.replicas import Replica
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import found

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
"""How many cases of random data for each operation."""
MADE_BY_HAND = 3
BOUND_S = 120.0 + EXAMPLES * 5.0
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)
_CASES = re.compile(r"(\d+) generated")


async def ask(replica: Replica, method: str, path: str, body: object = None) -> Any:
    async with replica.http.request(method, path, json=body) as answer:
        return await answer.json()


async def with_real_names(document: dict[str, Any], replica: Replica) -> dict[str, Any]:
    """Let the document name a model and things that exist, so that much of what is asked works."""
    created = [
        await ask(replica, "POST", "/v1/responses", {"model": "scripted", "input": "hello"})
        for _ in range(MADE_BY_HAND)
    ]
    talks = [await ask(replica, "POST", "/v1/conversations", {}) for _ in range(3)]
    responses = ["resp_unknown", *(response["id"] for response in created)]
    conversations = ["conv_unknown", *(talk["id"] for talk in talks)]
    schemas = document["components"]["schemas"]
    for name in ("CreateResponse", "CountInputTokens", "CompactConversation"):
        properties = schemas[name]["properties"]
        properties["model"] = {"enum": ["scripted", "gpt-5-mini"]}
        properties["previous_response_id"] = {"enum": [None, *responses]}
        if "conversation" in properties:
            properties["conversation"] = {"enum": [None, *conversations]}
        forms = [form for form in properties["input"]["anyOf"] if form != {"type": "null"}]
        properties["input"] = {"anyOf": forms}
        schemas[name]["required"] = ["model", "input"]
    named = {"response_id": responses, "conversation_id": conversations}
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in named:
                    parameter["schema"] = {"enum": named[parameter["name"]]}
    return document


async def fuzz(document: Path, replica: Replica, home: Path) -> tuple[int, str]:
    """Run schemathesis; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(document)),
        *("--url", replica.url, "--header", f"Authorization: Bearer {replica.client.api_key}"),
        *("--checks", CHECKS, "--phases", "fuzzing", "--continue-on-failure"),
        *("--max-examples", str(EXAMPLES), "--workers", "4", "--request-timeout", "30"),
        *("--generation-database", "none", "--seed", "1", "--no-color"),
        cwd=home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(BOUND_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


async def test_whatever_is_asked_is_answered_as_documented_and_no_request_is_lost(
    replicated_stack: Stack, replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    replica = replicas[0]
    topics = Topics(replicated_stack.kafka_bootstrap)
    commands_from = await topics.ends(RESPONSES_COMMANDS.name)
    facts_from = await topics.ends(RESPONSES_LIFECYCLE.name)
    document = await with_real_names(await ask(replica, "GET", "/openapi.json"), replica)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    code, said = await fuzz(path, replica, tmp_path)
    (tmp_path / "schemathesis.txt").write_text(said)
    assert code == 0, said[:20_000]
    cases = _CASES.search(said)
    assert cases is not None, said[-2_000:]
    assert int(cases[1]) > 1_000

    accepted = await _ids(topics, RESPONSES_COMMANDS.name, commands_from, RunResponseV1)
    assert len(accepted) > MADE_BY_HAND

    async def all_ended() -> bool:
        ended = await _ids(topics, RESPONSES_LIFECYCLE.name, facts_from, ResponseFinishedV1)
        return accepted <= ended

    await found(all_ended, "every accepted request comes to its end", bound_s=60)


async def _ids(topics: Topics, topic: str, begin: Any, contract: type[Any]) -> set[str]:
    ends = await topics.ends(topic)
    count = sum(ends[place] - begin[place] for place in ends)
    records = await topics.facts(topic, begin, lambda _: True, count=count)
    # By the very type: operations are kinds of commands that state no end.
    return {fact.response_id for fact in records if type(fact) is contract}
