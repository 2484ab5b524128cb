"""Which providers a request may go to, with what changed for it, and when one is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from contracts.providers import ProviderConfig
from contracts.tool_support import MOST_METADATA, TOOLS_DROPPED, WARNINGS_KEY, tool_support
from services.kit.retry import Backoff
from services.worker.domain import Job
from services.worker.errors import (
    ProviderBusyError,
    ProviderOpenError,
    RequestRefusedError,
    UpstreamError,
)

_RETRY = Backoff(attempts=10, first_seconds=0.2, longest_seconds=5.0)
_LONGEST_PAUSE_SECONDS = 20.0
_LONGEST_BACKGROUND_PAUSE_SECONDS = 300.0
_PATIENCE_SECONDS = 3_600.0
_OF_TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "max_tool_calls"})
_ORDINARY_TIERS = frozenset({"auto", "default"})


class Configured(Protocol):
    """Something with a provider's settings."""

    @property
    def config(self) -> ProviderConfig:
        """The settings."""
        ...


One = TypeVar("One", bound=Configured)


def choose(job: Job, upstreams: Sequence[One]) -> tuple[Job, Sequence[One]]:
    """Return those providers that can do what the request asks for, and the request for them.

    Raises `RequestRefusedError` naming the parameter when none can.
    """
    if job.request.get("tools"):
        job, upstreams = _for_tools(job, upstreams)
    if job.request.get("service_tier") is not None:
        upstreams = _for_tier(job, upstreams)
    return job, upstreams


def _for_tools(job: Job, upstreams: Sequence[One]) -> tuple[Job, Sequence[One]]:
    model, request = job.command.model, job.request
    configs = [upstream.config for upstream in upstreams]
    support = tool_support(configs, model, request["tools"], request.get("tool_choice"))
    if support.verdict == "refuse":
        raise RequestRefusedError(
            support.message, param=support.param, code="unsupported_parameter"
        )
    if support.verdict == "offer":
        return job, [one for one in upstreams if one.config.has_tools(model)]
    rest = {name: value for name, value in request.items() if name not in _OF_TOOLS}
    metadata = rest.get("metadata") or {}
    if len(metadata) < MOST_METADATA:
        rest["metadata"] = {**metadata, WARNINGS_KEY: TOOLS_DROPPED}
    return replace(job, request=rest), upstreams


def _for_tier(job: Job, upstreams: Sequence[One]) -> Sequence[One]:
    able = [upstream for upstream in upstreams if _knows_tier(upstream.config, job)]
    if upstreams and not able:
        raise RequestRefusedError(
            f"The service tier {job.request['service_tier']!r} is not offered for this model.",
            param="service_tier",
            code="unsupported_parameter",
        )
    return able


def _knows_tier(config: ProviderConfig, job: Job) -> bool:
    tier = str(job.request["service_tier"])
    if config.dialect == "responses" or tier in config.service_tiers or tier in _ORDINARY_TIERS:
        return True
    # In the background a tier says when the response has its turn here: that much is done.
    return job.command.background


def overrides(job: Job, config: ProviderConfig) -> dict[str, str | None] | None:
    """Return what this provider is sent in place of the request's own, None to leave one out."""
    asked = job.request.get("service_tier")
    tier = config.service_tier if asked is None else asked
    if tier is None:
        return None
    named = config.service_tiers.get(tier)
    if named is None and config.dialect == "chat":
        # Without a name of its own a chat provider may not know the parameter at all.
        named = tier if asked is None else None
        return {"service_tier": named}
    named = named or tier
    return None if named == asked else {"service_tier": named}


def pause_before_retry(
    error: UpstreamError, failures: int, *, retries: int, last: bool, patient_for: float | None
) -> float | None:
    """Return the seconds until the same provider is asked again, None when it is not.

    `last` says that no other provider is left. `patient_for` is how long a background response has
    been tried, None for one that somebody waits for. A provider that wants to be left alone for
    longer than that is not asked again: the client is told when to come back.
    """
    asked_for = error.retry_after_seconds or 0.0
    if isinstance(error, ProviderBusyError | ProviderOpenError):
        if patient_for is None or not last or patient_for > _PATIENCE_SECONDS:
            return None
        return max(asked_for, _RETRY.pause(min(failures, _RETRY.attempts)))
    if not error.retryable or failures > retries:
        return None
    longest = _LONGEST_PAUSE_SECONDS
    if patient_for is not None:
        longest = _LONGEST_BACKGROUND_PAUSE_SECONDS
    return None if asked_for > longest else max(asked_for, _RETRY.pause(failures))
