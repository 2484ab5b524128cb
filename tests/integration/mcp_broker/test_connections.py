"""Sessions with real MCP servers: over stdio, streamable HTTP and SSE, in good times and bad."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from services.kit.clock import SystemClock
from services.mcp_broker.clients import connection
from services.mcp_broker.clients.pool import ServerPool
from services.mcp_broker.domain import Limits
from services.mcp_broker.errors import ToolCallFailedError
from services.mcp_broker.servers_file import ServerConfig
from tests.integration.mcp_broker.servers import (
    TOOL_SERVER,
    connected,
    everything,
    free_port,
    gated,
    kill,
    processes,
    serving,
    traces,
    until,
)


def marker() -> dict[str, str]:
    """Return an environment by which a child process is found again."""
    return {"ANTIPHON_TEST_MARK": uuid4().hex}


async def test_the_reference_server_is_discovered_and_called_over_stdio(
    mcp_everything: Sequence[str],
) -> None:
    async with connected(everything(mcp_everything)) as server:
        assert {"echo", "get-sum", "get-tiny-image"} <= set(server.offers())
        echo = server.connection.tool("echo")
        assert echo is not None
        assert echo.input_schema["required"] == ["message"]
        assert await server.text("echo", message="hello") == "Echo: hello"
        image = await server.connection.call("get-tiny-image", {})
        assert [block.type for block in image.content] == ["text", "image", "text"]


async def test_the_reference_server_is_discovered_and_called_over_streamable_http(
    mcp_everything: Sequence[str],
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    config = ServerConfig(label="everything", transport="streamable_http", url=url)
    async with serving([*mcp_everything, "streamableHttp"], port), connected(config) as server:
        assert await server.text("get-sum", a=2, b=3) == "The sum of 2 and 3 is 5."
        answers = await asyncio.gather(*(server.text("echo", message=str(i)) for i in range(50)))
        assert answers == [f"Echo: {i}" for i in range(50)]


@pytest.mark.parametrize(
    ("transport", "path"), [("streamable_http", "/mcp"), ("sse", "/sse")], ids=["http", "sse"]
)
async def test_a_server_of_the_newest_protocol_is_called_over_http(
    transport: str, path: str, tmp_path: Path, python: str
) -> None:
    port = free_port()
    config = ServerConfig.model_validate(
        {"label": "traces", "transport": transport, "url": f"http://127.0.0.1:{port}{path}"}
    )
    file = tmp_path / "notes"
    async with serving([python, TOOL_SERVER, transport], port), connected(config) as server:
        assert await server.text("note", path=str(file), line="one") == "noted one"
    assert file.read_text() == "one\n"


async def test_the_time_server_answers(python: str) -> None:
    config = ServerConfig(
        label="time",
        transport="stdio",
        command=python,
        args=("-m", "mcp_server_time", "--local-timezone", "UTC"),
    )
    async with connected(config) as server:
        assert "UTC" in await server.text("get_current_time", timezone="UTC")


async def test_calls_before_the_first_connection_wait_for_the_same_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_GRACE_SECONDS", 0.0)
    gate, notes, mark = tmp_path / "gate", tmp_path / "notes", marker()
    async with connected(gated(gate, env=mark), wait=False) as server:
        given_up, *calls = [
            asyncio.create_task(server.text("note", path=str(notes), line=str(i)))
            for i in range(51)
        ]
        await until(lambda: len(processes(mark["ANTIPHON_TEST_MARK"])) >= 1)
        given_up.cancel()
        assert (await asyncio.wait([given_up], timeout=5))[0]
        assert not any(call.done() for call in calls)
        gate.touch()
        assert await asyncio.gather(*calls) == [f"noted {i}" for i in range(1, 51)]
        assert [state.status for state in server.seen] == ["ready"]
        assert len(processes(mark["ANTIPHON_TEST_MARK"])) == 1


async def test_a_call_before_the_first_connection_fails_when_that_fails(tmp_path: Path) -> None:
    config = gated(tmp_path / "never", connect_timeout_seconds=0.5)
    async with connected(config, wait=False) as server:
        with pytest.raises(ToolCallFailedError, match=r"no answer within 0\.5 s"):
            await server.text("note", path=str(tmp_path / "x"), line="x")


async def test_a_pool_stops_while_calls_and_a_listing_wait_for_a_connection(
    tmp_path: Path,
) -> None:
    pool = ServerPool(
        [gated(tmp_path / "never")],
        clock=SystemClock(),
        limits=Limits(output_bytes=1024, content_bytes=1024),
        on_change=lambda _: None,
    )
    await pool.start()
    call = asyncio.create_task(pool.call("traces", "note", {}))
    assert [state.error for state in await pool.listing(seconds=0.1)] == ["not connected yet"]
    async with asyncio.timeout(10):
        await pool.stop()
    with pytest.raises(ToolCallFailedError) as caught:
        await call
    assert caught.value.error == "unavailable"


async def test_a_killed_child_comes_back_and_calls_go_on(tmp_path: Path) -> None:
    mark = marker()
    async with connected(traces(env=mark)) as server:
        kill(mark["ANTIPHON_TEST_MARK"])
        await until(lambda: len(server.seen) == 2)
        assert server.state.status == "unavailable"
        # A call in this moment waits for the new child instead of failing.
        note = await server.text("note", path=str(tmp_path / "notes"), line="after")
        assert note == "noted after"
        assert [state.status for state in server.seen] == ["ready", "unavailable", "ready"]


async def test_a_call_whose_server_dies_is_unavailable_and_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "services.mcp_broker")
    async with connected(traces()) as server:
        with pytest.raises(ToolCallFailedError) as caught:
            await server.text("die")
        assert caught.value.error == "unavailable"
        await until(lambda: len(server.seen) == 3)
    # What a child says on standard error is in the log.
    assert sum("traces: dying on request" in line for line in caplog.messages) == 1


async def test_a_restarted_http_server_is_found_again(mcp_everything: Sequence[str]) -> None:
    port = free_port()
    config = ServerConfig(
        label="everything", transport="streamable_http", url=f"http://127.0.0.1:{port}/mcp",
        health_seconds=0.2,
    )  # fmt: skip
    async with connected(config, wait=False) as server:
        async with serving([*mcp_everything, "streamableHttp"], port):
            await server.ready()
        await until(lambda: server.state.status == "unavailable")
        async with serving([*mcp_everything, "streamableHttp"], port):
            await server.ready()
            assert await server.text("echo", message="back") == "Echo: back"


@pytest.mark.parametrize(
    "config",
    [
        ServerConfig(label="x", transport="streamable_http", url="http://127.0.0.1:9/mcp"),
        ServerConfig(label="x", transport="sse", url="http://127.0.0.1:9/sse"),
        ServerConfig(label="x", transport="stdio", command="/no/such/program"),
        ServerConfig(label="x", transport="stdio", command="false"),
        ServerConfig(
            label="x", transport="stdio", command="sleep", args=("60",), connect_timeout_seconds=0.3
        ),
    ],
    ids=["refused", "refused sse", "no program", "program ends", "program is silent"],
)
async def test_a_server_that_is_away_is_unavailable_and_calls_fail_at_once(
    config: ServerConfig,
) -> None:
    async with connected(config, wait=False) as server:
        await until(lambda: bool(server.state.error) and server.state.error != "not connected yet")
        started = time.monotonic()
        with pytest.raises(ToolCallFailedError) as caught:
            await server.text("echo", message="x")
        assert caught.value.error == "unavailable"
        assert time.monotonic() - started < 1


async def test_new_tools_are_discovered_when_the_server_says_so() -> None:
    async with connected(traces(health_seconds=3600)) as server:
        await server.text("grow", name="sprout")
        await until(lambda: "sprout" in server.offers())
        assert await server.text("sprout") == "I am sprout"


async def test_only_allowed_tools_are_offered_and_called(mcp_everything: Sequence[str]) -> None:
    config = everything(mcp_everything, allowed_tools=("echo", "no-such-tool"))
    async with connected(config) as server:
        assert server.offers() == ["echo"]
        for tool in ("get-env", "no-such-tool"):
            with pytest.raises(ToolCallFailedError) as caught:
                await server.text(tool)
            assert caught.value.error == "unknown_tool"


async def test_a_child_sees_its_own_environment_and_little_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTIPHON_ADMIN_KEY", "not for children")
    async with connected(traces(env={"ITS_TOKEN": "x"})) as server:
        result = await server.connection.call("environment", {})
        names = {str(block.model_dump()["text"]) for block in result.content}
    harmless = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE"}
    assert {"ITS_TOKEN", "PATH"} <= names <= {"ITS_TOKEN"} | harmless


async def test_fifty_calls_share_one_child_while_a_slow_one_runs(tmp_path: Path) -> None:
    mark = marker()
    async with connected(traces(env=mark)) as server:
        gate = tmp_path / "gate"
        slow = asyncio.create_task(
            server.text("note_and_wait", path=str(tmp_path / "slow"), line="slow", until=str(gate))
        )
        notes = tmp_path / "notes"
        calls = (server.text("note", path=str(notes), line=str(i)) for i in range(50))
        assert await asyncio.gather(*calls) == [f"noted {i}" for i in range(50)]
        assert sorted(notes.read_text().split(), key=int) == [str(i) for i in range(50)]
        assert not slow.done()
        assert len(processes(mark["ANTIPHON_TEST_MARK"])) == 1
        gate.touch()
        assert await slow == "noted slow and waited"


async def test_calls_beyond_the_bounds_of_a_server_are_refused(tmp_path: Path) -> None:
    async with connected(traces(max_concurrency=1, max_waiting=1)) as server:
        gate, notes = tmp_path / "gate", tmp_path / "notes"
        running, waiting, refused = (
            asyncio.create_task(
                server.text("note_and_wait", path=str(notes), line=line, until=str(gate))
            )
            for line in ("running", "waiting", "refused")
        )
        with pytest.raises(ToolCallFailedError, match="too many calls"):
            await refused
        await until(notes.exists)
        assert notes.read_text() == "running\n"
        gate.touch()
        await asyncio.gather(running, waiting)
        assert notes.read_text() == "running\nwaiting\n"


async def test_a_call_has_a_time_limit_of_its_server(tmp_path: Path) -> None:
    async with connected(traces(call_timeout_seconds=0.3)) as server:
        with pytest.raises(ToolCallFailedError) as caught:
            await server.text(
                "note_and_wait", path=str(tmp_path / "x"), line="x", until=str(tmp_path / "never")
            )
        assert caught.value.error == "timeout"
        assert await server.text("note", path=str(tmp_path / "x"), line="y") == "noted y"


async def test_no_child_is_left_behind() -> None:
    mark = marker()
    async with connected(traces(env=mark)):
        assert len(processes(mark["ANTIPHON_TEST_MARK"])) == 1
    assert processes(mark["ANTIPHON_TEST_MARK"]) == []
