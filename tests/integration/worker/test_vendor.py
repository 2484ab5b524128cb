"""The official client before a provider over real sockets: answers as they are, faults as ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.providers import ProviderConfig
from services.worker.errors import UpstreamError
from services.worker.providers.vendor import VendorClient
from tests.upstream import UpstreamProcess

MAX_RESPONSE_BYTES = 200_000


@asynccontextmanager
async def connected(base_url: str, **config: Any) -> AsyncIterator[VendorClient]:
    given = ProviderConfig(name="scripted", base_url=base_url, **config)
    client = VendorClient(given, api_key="sk-test", max_response_bytes=MAX_RESPONSE_BYTES)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def body(text: str, **parameters: Any) -> dict[str, Any]:
    return {"model": "gpt-5.1", "input": text, **parameters}


async def test_what_the_provider_says_is_returned_as_it_is(
    scripted_upstream: UpstreamProcess,
) -> None:
    raw = {"status": 200, "body": '{"input_tokens": 3, "new_field": [1]}', "headers": {}}
    async with connected(
        scripted_upstream.base_url, headers={"x-team": "search"}, models=("*",)
    ) as client:
        scripted_upstream.enqueue({"raw": raw})
        assert await client.count_input_tokens(body("x")) == {"input_tokens": 3, "new_field": [1]}
        compacted = await client.compact(body("hello", instructions="Be brief."))

    assert compacted["object"] == "response.compaction"
    last = scripted_upstream.requests()[-1]
    assert last["body"] == body("hello", instructions="Be brief.")
    assert last["headers"]["authorization"] == "Bearer sk-test"
    assert last["headers"]["x-team"] == "search"


FAULTS: list[tuple[str, int, str | None, bool]] = [
    ("400", 400, "invalid_value", False),
    ("401", 502, "provider_authentication", False),
    ("404", 404, "model_not_found", False),
    ("429@3", 429, "rate_limit_exceeded", True),
    ("quota", 429, "insufficient_quota", False),
    ("500", 502, "server_error", True),
    ("502", 502, None, True),
    ("503@2", 503, "overloaded", True),
    ("reset", 502, None, True),
    ("hang@5", 504, None, False),
    ("cut@1", 502, None, True),
]


@pytest.mark.parametrize(("fault", "status", "code", "retryable"), FAULTS)
@pytest.mark.parametrize("operation", ["count_input_tokens", "compact"])
async def test_every_fault_is_an_error_with_what_a_client_shall_be_told(
    scripted_upstream: UpstreamProcess,
    operation: str,
    fault: str,
    status: int,
    code: str | None,
    retryable: bool,
) -> None:
    async with connected(scripted_upstream.base_url, total_timeout_seconds=1) as client:
        with pytest.raises(UpstreamError) as failure:
            await getattr(client, operation)(body(f"fault:{fault}"))

    error = failure.value
    assert (error.status, error.code, error.retryable) == (status, code, retryable)
    if "@" in fault and status in (429, 503):
        assert error.retry_after_seconds == float(fault.partition("@")[2])


@pytest.mark.parametrize("text", ["no JSON", "[1]", '"x"', "{" + '"a":1,' * 100_000])
async def test_an_answer_that_is_no_object_of_bounded_size_is_an_error(
    scripted_upstream: UpstreamProcess, text: str
) -> None:
    headers = {"content-type": "application/json"}
    async with connected(scripted_upstream.base_url) as client:
        scripted_upstream.enqueue({"raw": {"status": 200, "headers": headers, "body": text}})
        with pytest.raises(UpstreamError):
            await client.compact(body("x"))


async def test_a_provider_that_is_not_there_is_an_error(unused_tcp_port: int) -> None:
    async with connected(f"http://127.0.0.1:{unused_tcp_port}/v1") as client:
        with pytest.raises(UpstreamError) as failure:
            await client.count_input_tokens(body("x"))
    assert (failure.value.status, failure.value.retryable) == (502, True)
