"""The byte pipe: a Responses-native stream goes to the client as it comes."""

from __future__ import annotations

import copy
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import orjson

from services.worker import sse
from services.worker.domain import (
    OPENING_EVENTS,
    TERMINAL_EVENTS,
    Event,
    Job,
    Response,
    terminal_status,
)
from services.worker.errors import MALFORMED, UpstreamError
from services.worker.outbox import OutStream
from services.worker.providers.answer import Answer
from services.worker.providers.client import UpstreamClient
from services.worker.runs.output import OutputBuilder

_KEPT_BYTES = 8 * 1024 * 1024


class Passthrough:
    """One stream of a provider, or several of the same response one after the other.

    After `run` and `follow`, `terminal` is the last event, ours already.

    Blocks without events about the whole response are never parsed. They are kept, up to 8 MiB, so
    that a broken stream can still be turned into a failed response with its partial output.

    Events up to `skip_through` were told. After `go_on` all others keep their numbers; without it
    they are numbered so that they follow. `on_begun` is awaited with the provider's own id of the
    response once that is known.
    """

    def __init__(
        self,
        job: Job,
        out: OutStream,
        *,
        max_event_bytes: int,
        skip_through: int = -1,
        on_begun: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._job = job
        self._out = out
        self._max_event_bytes = max_event_bytes
        self.skip_through = skip_through
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._latest: bytes | None = None
        self._begun = False
        self._renumbers = False
        self._next_number = 0
        self.skeleton: Response | None = None
        self.first_output_at: float | None = None
        self.terminal: Event | None = None
        self._complaint: str | None = None
        self._on_begun = on_begun
        self._upstream_id: str | None = None
        self._goes_on = False
        self._earlier = OutputBuilder()

    def go_on(self, earlier: OutputBuilder, skeleton: Response | None) -> None:
        """Take the stream that comes next for the rest of what was told so far."""
        self._earlier = earlier
        self.skeleton = skeleton
        self._kept, self._kept_bytes, self._latest = [], 0, None
        self._goes_on = True
        self.skip_through = earlier.last_sequence_number

    async def run(self, client: UpstreamClient, body: bytes) -> None:
        """Ask and pipe until the terminal event; raises `UpstreamError`, also without one."""
        await self.follow(client.post("/responses", body))

    async def follow(self, answering: AbstractAsyncContextManager[Answer]) -> None:
        """Pipe an answer, see `run`."""
        splitter = sse.EventSplitter(limit_bytes=self._max_event_bytes)
        async with answering as answer:
            if not answer.streams:
                raise UpstreamError("the provider did not answer with an event stream")
            async with aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    self._pass(splitter.feed(chunk))
                    if self.terminal is not None:
                        return
                    if self._on_begun is not None and self._upstream_id is not None:
                        on_begun, self._on_begun = self._on_begun, None
                        await on_begun(self._upstream_id)
                    await self._out.room()
            self._pass(splitter.finish())
            if self.terminal is not None:
                return
        raise UpstreamError(
            self._complaint or "the provider's stream ended before the response did"
        )

    @property
    def _looks_closely(self) -> bool:
        return self._renumbers or self.skip_through >= 0 or not self._begun

    def _pass(self, block: bytes) -> None:
        if not block:
            return
        if not self._looks_closely and not sse.has_special(block) and sse.is_whole(block):
            self._write(block)
            return
        for frame in sse.frames(block):
            try:
                self._take(frame)
            except MALFORMED as error:
                raise UpstreamError("the provider sent an event of another shape") from error
            if self.terminal is not None:
                return

    def partial(self) -> OutputBuilder:
        """Return what was delivered so far, as items."""
        built = copy.deepcopy(self._earlier)
        for event in _readable(self._kept):
            built.feed(event)
        if self._latest is not None:
            # Text that was not kept is lost, but the next event's number must be right.
            latest = OutputBuilder()
            for event in _readable([self._latest]):
                latest.feed(event)
            built.last_sequence_number = latest.last_sequence_number
        return built

    def _write(self, block: bytes) -> None:
        self._out.write(block)
        if self.first_output_at is None and b'"output_index"' in block:
            self.first_output_at = time.monotonic()
        if self._kept_bytes < _KEPT_BYTES:
            self._kept.append(block)
            self._kept_bytes += len(block)
        else:
            self._latest = block

    def _take(self, frame: bytes) -> None:
        try:
            event = sse.parse(frame)
        except UpstreamError:
            if not frame.endswith(b"}"):
                raise
            # It comes to the client in any case when no closer look is taken at its block.
            self._write(frame + sse.END)
            return
        if event is None:
            return
        self._begun = True
        kind = event.get("type")
        response: Any = event.get("response")
        whole = isinstance(response, dict)
        changed = self._number(event, opening=kind in OPENING_EVENTS)
        if kind == "error":
            self._complaint = str(event.get("message") or "") or None
        if whole:
            self._upstream_id = self._upstream_id or str(response.get("id"))
            self._job.adopt(response)
            if self.skeleton is None:
                self.skeleton = orjson.loads(orjson.dumps(response))
        if kind in TERMINAL_EVENTS:
            if not whole:
                raise UpstreamError("the provider's last event has no response")
            if terminal_status(response) is None:
                response["status"] = str(kind).removeprefix("response.")
            self.terminal = event
        elif event["sequence_number"] > self.skip_through:
            if kind not in OPENING_EVENTS:
                self.skip_through = -1
            self._write(sse.encode(event) if changed or whole else frame + sse.END)

    def _number(self, event: Event, *, opening: bool) -> bool:
        """Give the event the right number; return whether that is not the provider's own.

        A provider may send none. After an attempt that told only how the response began, this one
        goes on where that ended, although this provider may begin with fewer events.
        """
        given = event.get("sequence_number")
        if self._goes_on and isinstance(given, int):
            return False
        number = self._next_number
        if isinstance(given, int) and not self._renumbers:
            number = given
        if not opening:
            number = max(number, self.skip_through + 1)
        self._next_number = number + 1
        if number == given:
            return False
        self._renumbers = True
        event["sequence_number"] = number
        return True


def _readable(blocks: list[bytes]) -> Iterator[Event]:
    for block in blocks:
        for frame in sse.frames(block):
            try:
                event = sse.parse(frame)
            except UpstreamError:
                # It was piped as it came and tells nothing.
                continue
            if event is not None:
                yield event
