"""Run a stack in this process until somebody ends it, and turn signals into a clean stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from infra.local.downloads import Report
from infra.local.settings import LocalSettings
from infra.local.stack import Stack, running_stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Body = Callable[[Stack], Awaitable[int]]


def run_stack(settings: LocalSettings, report: Report, body: Body) -> int:
    """Start a stack, run `body` once it is ready, stop it; blocking, for the main thread.

    The first signal stops it in order, wherever it is, and gives 0; a second one kills the parts.
    Raises StackError when the stack can't start.
    """
    return asyncio.run(_run(settings, report, body))


async def until_interrupted(stack: Stack) -> int:
    """The body of a stack that just serves; ends by a signal or by a bug of the supervisor."""
    await stack.supervisor.failure()
    return 1


async def _run(settings: LocalSettings, report: Report, body: Body) -> int:
    with _cancelled_by_signals(report):
        try:
            async with running_stack(settings, report) as stack:
                return await body(stack)
        except asyncio.CancelledError:
            report("stopped")
            return 0


@contextmanager
def _cancelled_by_signals(report: Report) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1:
            _kill_children()
        elif task is not None:
            report("stopping; once more to kill")
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _kill_children() -> None:
    for child in psutil.Process().children():
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
