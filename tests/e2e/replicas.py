"""Two intakes and two workers before one upstream, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from openai import AsyncOpenAI

from contracts.topics import RESPONSES_EVENTS
from infra.local.ports import HOST
from infra.local.state import State
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

INTAKES = ("intake", "intake-2")
WORKERS = ("worker", "worker-2")


@dataclass
class Replica:
    """One intake: plain HTTP and the official client, each with the same key."""

    name: str
    stack: Stack
    url: str
    http: ClientSession
    client: AsyncOpenAI
    killed: list[int] = field(default_factory=list)

    def kill(self) -> None:
        """Kill it at once."""
        self.killed.append(self.stack.kill(self.name))

    async def drop_events(self) -> None:
        """Let Kafka drop all events of streams, as when their time has passed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.kafka_bootstrap)
        await admin.start()
        try:
            await admin.delete_records(
                {
                    TopicPartition(RESPONSES_EVENTS.name, partition): RecordsToDelete(-1)
                    for partition in range(RESPONSES_EVENTS.partitions)
                }
            )
        finally:
            await admin.close()

    async def again(self) -> None:
        """Wait until it is ready after it was killed."""
        await self.stack.ready_again(self.name, after=self.killed[-1])


def replica(stack: Stack, name: str, **headers: str) -> Replica:
    """Return an intake of the stack; the caller closes its clients."""
    url = f"http://{HOST}:{stack.part(name).port}"
    key = {"authorization": f"Bearer {stack.admin_key}", **headers}
    client = AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key=stack.admin_key,
        max_retries=0,
        timeout=60.0,
        _strict_response_validation=True,
    )
    return Replica(name, stack, url, ClientSession(url, headers=key), client)


async def up(stack: Stack, name: str) -> None:
    """Wait until a part is ready, which another test may have killed."""
    await until(lambda: stack.part(name).state is State.READY, f"{name} is ready")


async def close(one: Replica) -> None:
    """Close its clients."""
    await one.http.close()
    await one.client.close()


def text_of(response: dict[str, Any]) -> str:
    """The text of a Response object's first message."""
    return str(response["output"][0]["content"][0]["text"])
