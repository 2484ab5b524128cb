"""Asks one provider: natively where it has the call, else by a turn of Chat Completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from contracts.operations import CountInputTokensV1
from services.kit.clock import Clock
from services.kit.seal import SealError
from services.worker.chat.outcome import shape_usage
from services.worker.chat.request import to_chat_request
from services.worker.chat.turn import TurnEnd
from services.worker.domain import Item, Job
from services.worker.errors import MALFORMED, RequestRefusedError, UpstreamError
from services.worker.files.attached import refuse_lost
from services.worker.operations.compaction import (
    compaction_object,
    question,
    summary_of,
    user_messages,
)
from services.worker.providers.policy import overrides
from services.worker.runs.outcome import estimate_usage
from services.worker.runs.upstream import Tools, Upstream
from services.worker.seals import ItemSeals

Object = dict[str, Any]


class Vendor(Protocol):
    """The calls of a Responses-native provider that are off the hot path."""

    async def count_input_tokens(self, body: Object) -> Object:
        """Return the object `response.input_tokens`; raises `UpstreamError`."""
        ...

    async def compact(self, body: Object) -> Object:
        """Return the object `response.compaction`; raises `UpstreamError`."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """An answer for the client. `usage` is what it cost, None when it was free."""

    body: Object
    usage: Object | None = None
    estimated_usage: bool = False


@dataclass(frozen=True)
class Answers:
    """Gets one operation answered by one provider."""

    vendors: dict[str, Vendor]
    tools: Tools
    seals: ItemSeals
    clock: Clock
    new_id: Callable[[str], str]

    async def ask(self, job: Job, upstream: Upstream) -> Result:
        """Return the provider's answer as ours; raises `UpstreamError`."""
        job = self.seals.opened(job)
        refuse_lost(job.files)
        if isinstance(job.command, CountInputTokensV1):
            return await self._count(job, upstream)
        return await self._compact(job, upstream)

    async def _count(self, job: Job, upstream: Upstream) -> Result:
        vendor = self.vendors.get(upstream.config.name)
        body = self._body(job, upstream)
        if vendor is None:
            return await self._count_by_asking(job, upstream, body)
        async with _admitted(upstream):
            counted = await vendor.count_input_tokens(body)
        if not isinstance(counted.get("input_tokens"), int):
            raise UpstreamError("the provider's answer has no number of tokens")
        return Result(counted)

    async def _count_by_asking(self, job: Job, upstream: Upstream, body: Object) -> Result:
        """Let the model write one token: the usage it reports counts template, tools and images."""
        model = str(body["model"])
        try:
            asked = to_chat_request(body, job.complete_input(), model=model)
        except MALFORMED as error:
            raise _malformed(error) from error
        for name in ("stream", "stream_options", "max_tokens"):
            asked.pop(name, None)
        asked["max_completion_tokens"] = 1
        answer = await upstream.client.read_json("/chat/completions", orjson.dumps(asked))
        given = answer.get("usage")
        usage = shape_usage(given) if isinstance(given, dict) else None
        if usage is None:
            raise UpstreamError("the provider did not say how many tokens it read")
        counted = {"object": "response.input_tokens", "input_tokens": usage["input_tokens"]}
        return Result(counted, usage)

    async def _compact(self, job: Job, upstream: Upstream) -> Result:
        if (changed := overrides(job, upstream.config)) is not None:
            job = replace(job, overrides=changed)
        vendor = self.vendors.get(upstream.config.name)
        if vendor is None:
            return await self._summarise(job, upstream)
        body = self._body(job, upstream)
        async with _admitted(upstream):
            compacted = await vendor.compact(body)
        if not isinstance(compacted.get("output"), list):
            raise UpstreamError("the provider's answer is no compaction")
        compacted["id"] = job.response_id
        usage = compacted.get("usage")
        return Result(compacted, usage if isinstance(usage, dict) else None)

    async def _summarise(self, job: Job, upstream: Upstream) -> Result:
        if not self.seals.sealer.able:
            raise RequestRefusedError(
                "Conversations can't be compacted for this model: the installation has no secret "
                "to seal them with.",
                param="model",
                code="unsupported_operation",
            )
        items = job.input_items()
        end = await self._turn(job, upstream, job.complete_input())
        summary = summary_of(end)
        try:
            compaction = self.seals.compaction(
                summary, project=job.command.principal.project, item_id=self.new_id("cmp")
            )
        except SealError as error:
            raise UpstreamError(str(error), status=500, retryable=False) from error
        output = [*user_messages(items, self.new_id), compaction]
        body = compaction_object(
            job.response_id,
            created_at=int(self.clock.now().timestamp()),
            output=output,
            usage=end.usage or estimate_usage(job, end.output),
        )
        return Result(body, body["usage"], estimated_usage=end.usage is None)

    async def _turn(self, job: Job, upstream: Upstream, items: list[Item]) -> TurnEnd:
        given = {**job.request, **(job.overrides or {})}
        request, asked = question(given, items)
        model = upstream.config.upstream_name(job.command.model)
        async with aclosing(upstream.turns.turn(request, asked, model=model)) as events:
            async for event in events:
                if isinstance(event, TurnEnd):
                    return event
        raise UpstreamError("the provider's turn ended without an end")

    def _body(self, job: Job, upstream: Upstream) -> Object:
        config = upstream.config
        body = job.upstream_request(model=config.upstream_name(job.command.model), stream=False)
        plan = self.tools.plan(job, config)
        if plan.runs_here:
            body["tools"] = plan.offered
            if "tool_choice" in body:
                body["tool_choice"] = plan.choice(body["tool_choice"])
        return body


@asynccontextmanager
async def _admitted(upstream: Upstream) -> AsyncIterator[None]:
    """Make a call of the official client one of the provider's calls, with its bounds."""
    guard = upstream.client.guard
    if guard.limited:
        await guard.place()
    with guard.call():
        yield


def _malformed(error: Exception) -> RequestRefusedError:
    return RequestRefusedError(f"The request has a part of another shape than expected: {error!r}.")
