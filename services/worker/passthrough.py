"""The byte pipe: a Responses-native stream goes to the client as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from services.worker import sse
from services.worker.domain import TERMINAL, Event, Job, Response
from services.worker.errors import UpstreamError
from services.worker.outbox import OutStream
from services.worker.output import OutputBuilder
from services.worker.providers.client import UpstreamClient

_KEPT_BYTES = 8 * 1024 * 1024
_TERMINAL_EVENTS = frozenset(f"response.{status}" for status in TERMINAL)


class Passthrough:
    """One streamed attempt. After `run`, `terminal` is the last event, ours already.

    Blocks without events about the whole response are never parsed. They are kept, up to 8 MiB, so
    that a broken stream can still be turned into a failed response with its partial output.
    """

    def __init__(
        self, job: Job, out: OutStream, *, max_event_bytes: int, skip_through: int = -1
    ) -> None:
        self._job = job
        self._out = out
        self._max_event_bytes = max_event_bytes
        self.skip_through = skip_through
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._number_from: int | None = None
        self.skeleton: Response | None = None
        self.wrote = False
        self.terminal: Event | None = None

    async def run(self, client: UpstreamClient, body: bytes) -> None:
        """Pipe until the terminal event; raises `UpstreamError`, also when there is none."""
        splitter = sse.EventSplitter(limit_bytes=self._max_event_bytes)
        async with client.post("/responses", body) as answer:
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                raise UpstreamError("the provider did not answer with an event stream")
            chunks: AsyncIterator[bytes] = answer.content.iter_any()
            async for chunk in chunks:
                block = splitter.feed(chunk)
                if not block:
                    continue
                if self._looks_closely or sse.has_special(block):
                    for frame in sse.frames(block):
                        self._take(frame)
                        if self.terminal is not None:
                            return
                else:
                    self._write(block)
                await self._out.room()
        raise UpstreamError("the provider's stream ended before the response did")

    @property
    def _looks_closely(self) -> bool:
        return self._number_from is not None or self.skip_through >= 0

    def partial(self) -> OutputBuilder:
        """Return what was delivered so far, as items."""
        built = OutputBuilder()
        for block in self._kept:
            for frame in sse.frames(block):
                event = sse.parse(frame)
                if event is not None:
                    built.feed(event)
        return built

    def _write(self, block: bytes) -> None:
        self._out.write(block)
        self.wrote = True
        if self._kept_bytes < _KEPT_BYTES:
            self._kept.append(block)
            self._kept_bytes += len(block)

    def _take(self, frame: bytes) -> None:
        event = sse.parse(frame)
        if event is None:
            return
        changed = self._number(event)
        kind = event.get("type")
        response: Any = event.get("response")
        if isinstance(response, dict):
            self._job.adopt(response)
            changed = True
            if self.skeleton is None:
                self.skeleton = orjson.loads(orjson.dumps(response))
        if kind in _TERMINAL_EVENTS:
            self.terminal = event
        elif event["sequence_number"] > self.skip_through:
            self.skip_through = -1
            self._write(sse.encode(event) if changed else frame + sse.END)

    def _number(self, event: Event) -> bool:
        """Number the events of a provider that does not; return whether this one was changed."""
        if self._number_from is None:
            if isinstance(event.get("sequence_number"), int):
                return False
            self._number_from = 0
        event["sequence_number"] = self._number_from
        self._number_from += 1
        return True
