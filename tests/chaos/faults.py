"""Makes the faults of a plan happen, and returns when each is over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from tests.chaos.environment import System
from tests.chaos.messages import redeliver, storm
from tests.chaos.proxy.links import Trouble, What
from tests.chaos.schedule import ALL, Fault

MESSAGES_TIMEOUT_S = 60.0

Strike = Callable[[System, Fault], Awaitable[str]]


async def strike(system: System, fault: Fault) -> str:
    """Let a fault happen; return once it is over, with a word on what it met.

    Raises NotBackError when a part does not come back.
    """
    return await _STRIKES[fault.kind](system, fault)


async def _kill(system: System, fault: Fault) -> str:
    names = system.brokers if fault.target == ALL else (fault.target,)
    killed = {name: system.kill(name) for name in names}
    for name, pid in killed.items():
        await system.ready(name, after=pid)
    return f"pid {', '.join(map(str, killed.values()))}"


async def _restart(system: System, fault: Fault) -> str:
    pid = system.signal(fault.target, signal.SIGTERM)
    await system.ready(fault.target, after=pid)
    return f"pid {pid}"


async def _pause(system: System, fault: Fault) -> str:
    pid = system.signal(fault.target, signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        # Only the one that was stopped: in its place another may run.
        if pid is not None and pid == system.pid(fault.target):
            system.signal(fault.target, signal.SIGCONT)
    await system.ready(fault.target)
    return f"pid {pid}"


async def _trouble(system: System, fault: Fault) -> str:
    trouble = Trouble(what=_WHATS[fault.kind], **fault.numbers)
    pids: tuple[int, ...] = ()
    if fault.who != ALL:
        pid = system.pid(fault.who)
        if pid is None:
            return "its process is gone"
        pids = (pid,)
    routes = system.routes[fault.target]
    hit = 0
    try:
        for route in routes:
            hit += await system.proxy.impose(route, trouble, pids)
        await asyncio.sleep(fault.seconds)
    finally:
        await system.proxy.heal(*routes)
    return f"{hit} connections"


async def _storm(system: System, fault: Fault) -> str:
    joins = int(fault.numbers["joins"])
    return await _bounded(
        storm(system.kafka, fault.target, joins=joins, seconds=fault.seconds), f"{joins} joins"
    )


async def _redeliver(system: System, fault: Fault) -> str:
    messages, seed = int(fault.numbers["messages"]), int(fault.numbers["seed"])
    return await _bounded(
        redeliver(system.kafka, fault.target, messages=messages, seed=seed, seconds=fault.seconds),
        "messages again",
    )


async def _bounded(work: Awaitable[int | None], what: str) -> str:
    try:
        done = await asyncio.wait_for(work, MESSAGES_TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError) as error:
        # Another fault of the round is in the way.
        return f"not whole: {error!r}"
    return what if done is None else f"{done} {what}"


_WHATS: dict[str, What] = {
    "cut": "cut",
    "blackhole": "blackhole",
    "delay": "delay",
    "throttle": "throttle",
}
_STRIKES: dict[str, Strike] = {
    "kill": _kill,
    "kill-broker": _kill,
    "kill-kafka": _kill,
    "kill-postgres": _kill,
    "kill-s3": _kill,
    "restart": _restart,
    "pause": _pause,
    "pause-broker": _pause,
    "cut": _trouble,
    "blackhole": _trouble,
    "delay": _trouble,
    "throttle": _trouble,
    "storm": _storm,
    "redeliver": _redeliver,
}
