"""Keep parts running: each after what it needs, again after it ended, all gone at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from infra.local.backoff import Backoff
from infra.local.downloads import Report
from infra.local.errors import StackError
from infra.local.part import Part
from infra.local.process import Child, log_file, until_ready
from infra.local.state import PartStatus, State

START_ATTEMPTS = 3
"""A part that has never been ready may end this often before the whole start fails."""


@dataclass(kw_only=True, slots=True)
class Step:
    """A part to keep running or a job to do once, after the steps that `needs` names.

    Steps stop by falling `tier`, those of one tier side by side.
    """

    name: str
    needs: tuple[str, ...] = ()
    tier: int = 0
    part: Part | None = None
    job: Callable[[], Awaitable[None]] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    child: Child | None = None


class Supervisor:
    """Runs the steps of one stack; `changed` is called after every change of a status."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        report: Report,
        changed: Callable[[PartStatus], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._steps = {step.name: step for step in steps}
        self._report = report
        self._changed = changed
        self._backoff = backoff or Backoff()
        self._keepers: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = {step.name: PartStatus(step.name) for step in steps}

    async def start(self) -> None:
        """Return when every part is ready and every job done; raises the first StackError."""
        for step in self._steps.values():
            keeper = asyncio.create_task(self._keep(step), name=step.name)
            keeper.add_done_callback(self._keeper_ended)
            self._keepers.append(keeper)
        ready = asyncio.create_task(self._all_done())
        first: set[asyncio.Future[None]] = {ready, self._failure}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._failure.done():
            self._failure.result()

    async def failure(self) -> None:
        """Wait for what supervision can't mend, a bug of ours, and raise it."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Stop every part in order; returns when all are gone. Safe after a failed start."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for tier in sorted({step.tier for step in self._steps.values()}, reverse=True):
            steps = [step for step in self._steps.values() if step.tier == tier]
            await asyncio.gather(*(self._stop_step(step) for step in steps))

    def kill(self) -> None:
        """Kill every part at once, for somebody who won't wait; `stop` then returns soon."""
        for step in self._steps.values():
            if step.child is not None:
                step.child.kill()

    async def _all_done(self) -> None:
        for step in self._steps.values():
            await step.done.wait()

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        if keeper.cancelled() or self._failure.done():
            return
        if error := keeper.exception():
            self._failure.set_exception(error)

    async def _keep(self, step: Step) -> None:
        for need in step.needs:
            await self._steps[need].done.wait()
        if step.part is not None:
            await self._keep_part(step, step.part)
        elif step.job is not None:
            self._set(step, State.STARTING)
            await step.job()
            self._set(step, State.DONE)
        else:
            self._set(step, State.EXTERNAL)
        step.done.set()

    async def _keep_part(self, step: Step, part: Part) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            began_s = clock()
            try:
                await self._run(step, part)
            except StackError as problem:
                failures = self._backoff.failures_after(failures, clock() - began_s)
                # Without a child there was nothing to start, and trying again mends nothing.
                if not step.done.is_set() and (step.child is None or failures >= START_ATTEMPTS):
                    self._set(step, State.FAILED)
                    raise
                wait_s = self._backoff.wait_s(failures)
                self.status[step.name].restarts += 1
                self._set(step, State.RESTARTING)
                self._report(f"{problem.problem}; starting it again in {wait_s:g} s")
                await asyncio.sleep(wait_s)

    async def _run(self, step: Step, part: Part) -> None:
        step.child = None
        command = await part.prepare(self._report)
        log = log_file(part.home, part.name)
        child = await Child.start(command, log)
        step.child = child
        self._set(step, State.STARTING, pid=child.pid)
        try:
            await until_ready(part, child)
        except StackError:
            await child.stop()
            raise
        self._set(step, State.READY, pid=child.pid)
        step.done.set()
        code = await child.wait()
        raise StackError(
            f"{part.name} ended with code {code}", fix=f"Read {log}", detail=child.last_words
        )

    async def _stop_step(self, step: Step) -> None:
        if step.child is not None and step.child.returncode is None:
            self._set(step, State.STOPPING, pid=step.child.pid)
            await step.child.stop()
        if step.part is not None:
            self._set(step, State.STOPPED)

    def _set(self, step: Step, state: State, *, pid: int | None = None) -> None:
        status = self.status[step.name]
        status.state = state
        status.pid = pid
        if step.part is not None:
            status.port = step.part.port
            status.log = str(log_file(step.part.home, step.name))
        self._changed(status)
