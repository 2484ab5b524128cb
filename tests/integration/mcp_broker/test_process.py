"""The whole service as a process: commands in over Kafka, results out, also across crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.event import Envelope, decode
from contracts.registry import CONTRACTS
from contracts.tools import CallMcpToolV1, McpServerDiscoveredV1, ToolResultV1
from contracts.topics import MCP_COMMANDS, MCP_SERVERS, TOOLS_RESULTS
from infra.topics import apply
from services.kit.clock import SystemClock
from services.kit.ids import new_id
from tests.integration.mcp_broker.calls import command
from tests.integration.mcp_broker.servers import TOOL_SERVER, free_port, gated, until

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-between-services"
LEASE_SECONDS = 1.5


class Bench:
    """Kafka as a worker sees it, and brokers to start and stop."""

    def __init__(self, bootstrap: str, database_url: str, folder: Path) -> None:
        self.results: list[tuple[int, Envelope]] = []
        self.servers: dict[str, McpServerDiscoveredV1 | None] = {}
        self.port = free_port()
        self.file = folder / "servers.toml"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KAFKA_BOOTSTRAP": bootstrap,
            "DATABASE_URL": database_url,
            "ANTIPHON_INTERNAL_TOKEN": TOKEN,
            "LOG_FORMAT": "console",
            "MCP_BROKER_SERVERS": str(self.file),
            "MCP_BROKER_PORT": str(self.port),
            "MCP_BROKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "MCP_BROKER_DRAIN_SECONDS": "0.2",
        }
        self._log = folder / "broker.log"
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        replies = [TopicPartition(TOOLS_RESULTS.name, n) for n in range(TOOLS_RESULTS.partitions)]
        self._consumer.assign([*replies, TopicPartition(MCP_SERVERS.name, 0)])
        await self._consumer.seek_to_end(*replies)
        for partition in replies:
            await self._consumer.position(partition)
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def _follow(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.topic == MCP_SERVERS.name:
                        self._note_server(record.key.decode(), record.value)
                    else:
                        envelope = decode(record.value, CONTRACTS)
                        assert record.key.decode() == envelope.subject
                        self.results.append((record.partition, envelope))

    def _note_server(self, label: str, value: bytes | None) -> None:
        data = decode(value, CONTRACTS).data if value else None
        assert data is None or isinstance(data, McpServerDiscoveredV1)
        self.servers[label] = data

    async def ask(self, *commands: CallMcpToolV1) -> None:
        for asked in commands:
            envelope = Envelope.of(
                asked,
                event_id=new_id("evt"),
                source="/tests",
                subject=asked.response_id,
                time=SystemClock().now(),
            )
            await self._producer.send_and_wait(
                MCP_COMMANDS.name, envelope.encode(), key=asked.response_id.encode()
            )

    def answers(self, asked: CallMcpToolV1) -> list[ToolResultV1]:
        data = [envelope.data for _, envelope in self.results]
        return [
            result
            for result in data
            if isinstance(result, ToolResultV1) and result.call_id == asked.call_id
        ]

    async def answer(self, asked: CallMcpToolV1) -> ToolResultV1:
        await until(lambda: bool(self.answers(asked)))
        return self.answers(asked)[0]

    async def get(self, path: str, *, token: str = TOKEN) -> tuple[int, dict[str, object]]:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session,
            session.get(path, headers=headers) as response,
        ):
            return response.status, await response.json()

    async def _is_ready(self) -> bool:
        try:
            return (await self.get("/readyz"))[0] == 200
        except aiohttp.ClientConnectionError:
            return False

    @contextlib.asynccontextmanager
    async def broker(self, *, probe: bool = True) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a broker; at the end of the block it is stopped in the regular way.

        With `probe` it has its partitions when the block begins: after one was killed, Kafka keeps
        them for that one for some seconds.
        """
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.mcp_broker.main",
                cwd=ROOT, env=self._environment, stderr=log,
            )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                while not await self._is_ready():
                    assert process.returncode is None, self._log.read_text()
                    await asyncio.sleep(0.05)
            if probe:
                asked = [command(label="nobody") for _ in range(2 * MCP_COMMANDS.partitions)]
                await self.ask(*asked)
                for one in asked:
                    await self.answer(one)
                self.results.clear()
            yield process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(20):
                    assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def bench(kafka_bootstrap: str, migrated_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    await apply(kafka_bootstrap)
    bench = Bench(kafka_bootstrap, migrated_url, tmp_path)
    bench.file.write_text(
        f'[[servers]]\nlabel = "traces"\ntransport = "stdio"\ncommand = "{sys.executable}"\n'
        f'args = ["{TOOL_SERVER}", "stdio"]\n'
    )
    await bench.start()
    yield bench
    await bench.stop()


async def test_results_of_every_kind_go_to_the_partition_that_waits(
    bench: Bench, mcp_everything: Sequence[str]
) -> None:
    program, *args = mcp_everything
    listed = ", ".join(f'"{arg}"' for arg in (*args, "stdio"))
    with bench.file.open("a") as file:
        file.write(
            f'[[servers]]\nlabel = "everything"\ntransport = "stdio"\n'
            f'command = "{program}"\nargs = [{listed}]\n'
            '[[servers]]\nlabel = "gone"\ntransport = "sse"\nurl = "http://127.0.0.1:9/sse"\n'
        )
    echo = command("echo", {"message": "hi"}, label="everything", partition=5)
    image = command("get-tiny-image", label="everything")
    failing = command("get-sum", {"a": "x"}, label="everything")
    wrong = {
        "unknown_server": command(label="nobody"),
        "unknown_tool": command("nothing"),
        "invalid_arguments": command("note", "[1]"),
        "unavailable": command(label="gone"),
        "timeout": command(seconds=-1),
    }
    async with bench.broker():
        await until(lambda: len(bench.servers) >= 3)
        await bench.ask(echo, image, failing, *wrong.values())
        result = await bench.answer(echo)
        assert (result.output, result.error, result.executor) == ("Echo: hi", None, "mcp_broker")
        assert [p for p, envelope in bench.results if envelope.data == result] == [5]
        assert result.response_id == echo.response_id
        blocks = (await bench.answer(image)).content
        assert [block["type"] for block in blocks] == ["text", "image", "text"]
        assert (await bench.answer(failing)).error == "tool_error"
        for error, asked in wrong.items():
            assert (await bench.answer(asked)).error == error
        status, listing = await bench.get("/v1/mcp/servers")
    assert status == 200
    servers = listing["data"]
    assert isinstance(servers, list)
    assert [(server["server_label"], server["status"]) for server in servers] == [
        ("traces", "ready"),
        ("everything", "ready"),
        ("gone", "unavailable"),
    ]


async def test_the_topic_of_servers_follows_the_file(bench: Bench) -> None:
    first = bench.file.read_text()
    bench.file.write_text(first + first.replace('"traces"', '"fleeting"'))
    async with bench.broker(probe=False):
        await until(lambda: bench.servers.get("fleeting") is not None)
    bench.file.write_text(first)
    async with bench.broker(probe=False):
        await until(lambda: bench.servers["fleeting"] is None)
        await until(lambda: bench.servers.get("traces") is not None)
    traces = bench.servers["traces"]
    assert traces is not None
    assert traces.status == "ready"
    assert "note" in [tool.name for tool in traces.tools]


async def test_only_services_may_list_the_servers(bench: Bench) -> None:
    async with bench.broker(probe=False):
        status, refused = await bench.get("/v1/mcp/servers", token="guess")
    assert status == 401
    assert "error" in refused


async def test_a_redelivered_call_is_not_executed_twice(bench: Bench, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    asked = command("note", {"path": str(notes), "line": "once"})
    moved = asked.model_copy(update={"reply_partition": 6})
    async with bench.broker():
        await bench.ask(asked, asked)
        await bench.answer(asked)
        await bench.ask(moved)
        await until(lambda: any(partition == 6 for partition, _ in bench.results))
    async with bench.broker():
        before = len(bench.answers(asked))
        await bench.ask(asked)
        await until(lambda: len(bench.answers(asked)) > before)
    assert notes.read_text() == "once\n"
    assert len({envelope.id for _, envelope in bench.results}) == 1


async def test_fifty_calls_at_once_pass_a_slow_one(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = command(
        "note_and_wait", {"path": str(tmp_path / "slow"), "line": "slow", "until": str(gate)}
    )
    notes = tmp_path / "notes"
    quick = [command("note", {"path": str(notes), "line": str(i)}) for i in range(50)]
    async with bench.broker():
        await bench.ask(slow, *quick)
        await until(lambda: all(bench.answers(asked) for asked in quick))
        assert bench.answers(slow) == []
        gate.touch()
        assert (await bench.answer(slow)).error is None
    assert sorted(notes.read_text().split(), key=int) == [str(i) for i in range(50)]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_a_call_that_was_cut_short_is_run_again_by_the_next_broker(
    bench: Bench, tmp_path: Path, end: signal.Signals
) -> None:
    notes, gate, overdue = tmp_path / "notes", tmp_path / "gate", tmp_path / "overdue"
    async with bench.broker() as process:
        cut = command("note_and_wait", {"path": str(notes), "line": "cut", "until": str(gate)})
        late = command(
            "note_and_wait",
            {"path": str(overdue), "line": "late", "until": str(gate)},
            seconds=3,
        )
        await bench.ask(cut, late)
        await until(notes.exists)
        await until(overdue.exists)
        process.send_signal(end)
        await process.wait()
    assert bench.answers(cut) == []
    await asyncio.to_thread(gate.touch)
    await until(lambda: SystemClock().now() > late.deadline)
    async with bench.broker(probe=False):
        assert (await bench.answer(cut)).output == "noted cut and waited"
        assert (await bench.answer(late)).error == "timeout"
    assert notes.read_text() == "cut\ncut\n"
    assert overdue.read_text() == "late\n"


async def test_calls_to_a_restarted_broker_wait_until_its_servers_are_connected(
    bench: Bench, tmp_path: Path
) -> None:
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    server = gated(gate)
    args = ", ".join(json.dumps(arg) for arg in server.args)
    bench.file.write_text(
        f'[[servers]]\nlabel = "traces"\ntransport = "stdio"\ncommand = "sh"\nargs = [{args}]\n'
    )
    gate.touch()
    before = command("note", {"path": str(notes), "line": "before"})
    async with bench.broker():
        await bench.ask(before)
        assert (await bench.answer(before)).error is None
    gate.unlink()
    async with bench.broker():
        # Longer than the broker gives a server beyond its time to connect.
        hasty = command("note", {"path": str(notes), "line": "hasty"}, seconds=6)
        patient = [command("note", {"path": str(notes), "line": str(i)}) for i in range(5)]
        await bench.ask(hasty, *patient)
        assert (await bench.answer(hasty)).error == "timeout"
        assert not any(bench.answers(asked) for asked in patient)
        listing = asyncio.create_task(bench.get("/v1/mcp/servers"))
        gate.touch()
        assert [(await bench.answer(asked)).error for asked in patient] == [None] * 5
        _, listed = await listing
    assert '"status": "ready"' in json.dumps(listed)
    assert sorted(notes.read_text().split()) == ["0", "1", "2", "3", "4", "before"]
