"""Which providers are asked for what, with which changes, and when again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from contracts.providers import Dialect, ProviderConfig, Providers
from contracts.tool_support import TOOLS_DROPPED, WARNINGS_KEY
from services.kit.retry import Backoff
from services.worker.errors import (
    ProviderBusyError,
    ProviderOpenError,
    RequestRefusedError,
    UpstreamError,
)
from services.worker.providers.policy import choose, overrides, pause_before_retry
from tests.unit.worker.runs import job

TOOL = {"type": "function", "name": "f"}
MCP = {"type": "mcp", "server_label": "srv"}


@dataclass(frozen=True)
class Upstream:
    config: ProviderConfig


def upstream(name: str, dialect: Dialect = "responses", **settings: Any) -> Upstream:
    return Upstream(
        ProviderConfig(name=name, dialect=dialect, base_url="http://nowhere", **settings)
    )


def chosen(*upstreams: Upstream, background: bool = False, **request: Any) -> tuple[Any, list[str]]:
    of, able = choose(job(background=background, **request), upstreams)
    return of.request, [one.config.name for one in able]


WITH = upstream("with")
WITHOUT = upstream("without", models_without_tools=("gpt-5*",))
STRICT = upstream("strict", models_without_tools=("*",), on_unsupported_tools="refuse")


def test_a_request_without_tools_goes_to_all() -> None:
    assert chosen(WITHOUT, WITH)[1] == ["without", "with"]
    assert chosen(WITHOUT, WITH, tools=[])[1] == ["without", "with"]


def test_providers_without_tools_are_passed_over_while_another_has_them() -> None:
    request, names = chosen(WITHOUT, WITH, tools=[TOOL], tool_choice="required")
    assert names == ["with"]
    assert request["tools"] == [TOOL]


@pytest.mark.parametrize(
    "choice",
    [None, "auto", "none", {"type": "allowed_tools", "mode": "auto", "tools": []}],
)
@pytest.mark.parametrize("tool", [TOOL, MCP])
def test_tools_that_nobody_has_are_left_out_and_it_is_told(choice: Any, tool: Any) -> None:
    request, names = chosen(
        WITHOUT, tools=[tool], tool_choice=choice, parallel_tool_calls=True, metadata={"a": "b"}
    )
    assert names == ["without"]
    assert request["metadata"] == {"a": "b", WARNINGS_KEY: TOOLS_DROPPED}
    assert not request.keys() & {"tools", "tool_choice", "parallel_tool_calls"}


def test_full_metadata_has_no_place_for_the_warning() -> None:
    full = {str(n): "x" for n in range(16)}
    request, _ = chosen(WITHOUT, tools=[TOOL], metadata=full)
    assert request["metadata"] == full
    assert len(WARNINGS_KEY) <= 64
    assert len(TOOLS_DROPPED) <= 512


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "f"},
        {"type": "mcp", "server_label": "srv"},
        {"type": "allowed_tools", "mode": "required", "tools": []},
    ],
)
def test_a_choice_that_demands_a_tool_is_refused_by_name(choice: Any) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        chosen(WITHOUT, tools=[TOOL], tool_choice=choice)
    assert (caught.value.param, caught.value.code) == ("tool_choice", "unsupported_parameter")


def test_the_first_provider_of_the_model_may_refuse_tools() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        chosen(STRICT, WITHOUT, tools=[TOOL])
    assert caught.value.param == "tools"
    assert chosen(WITHOUT, STRICT, tools=[TOOL])[1] == ["without", "strict"]


CHAT = upstream("chat", "chat")
TIERED = upstream("tiered", "chat", service_tiers={"flex": "batch"})


def test_a_tier_goes_to_providers_that_have_it() -> None:
    assert chosen(CHAT, TIERED, WITH, service_tier="flex")[1] == ["tiered", "with"]
    assert chosen(CHAT, TIERED, service_tier="auto")[1] == ["chat", "tiered"]
    with pytest.raises(RequestRefusedError) as caught:
        chosen(CHAT, service_tier="priority")
    assert caught.value.param == "service_tier"


def test_in_the_background_a_tier_is_at_least_a_place_in_the_queue() -> None:
    assert chosen(CHAT, service_tier="flex", background=True)[1] == ["chat"]


@pytest.mark.parametrize(
    ("of", "asked", "sent"),
    [
        (WITH, None, None),
        (WITH, "flex", "flex"),
        (CHAT, None, None),
        (CHAT, "auto", None),
        (TIERED, "flex", "batch"),
        (TIERED, "default", None),
        (upstream("d", service_tier="priority"), None, "priority"),
        (upstream("d", service_tier="priority"), "flex", "flex"),
        (upstream("d", "chat", service_tier="scale"), None, "scale"),
        (upstream("d", service_tiers={"fast": "priority"}), "fast", "priority"),
    ],
)
def test_each_provider_is_sent_the_tier_by_its_own_name(
    of: Upstream, asked: str | None, sent: str | None
) -> None:
    one = job(service_tier=asked) if asked else job()
    changed = overrides(one, of.config)
    sending = one if changed is None else job_with(one, changed)
    assert sending.upstream_request(model="m", stream=False).get("service_tier") == sent


def job_with(one: Any, changed: dict[str, str | None]) -> Any:
    return type(one)(one.command, one.attempt, one.request, one.history, overrides=changed)


def test_a_model_has_its_providers_in_order_by_name_pattern_or_alias() -> None:
    first = ProviderConfig(name="a", base_url="http://a", models=("x",), aliases={"small": "x"})
    second = ProviderConfig(name="b", base_url="http://b", models=("sm*",))
    both = Providers(providers=(first, second))
    assert [p.name for p in both.serving("small")] == ["a", "b"]
    assert [p.upstream_name("small") for p in both.serving("small")] == ["x", "small"]
    assert both.serving("other") == ()


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "pause", lambda *_: 1.0)


def failure(status: int = 503, **more: Any) -> UpstreamError:
    return UpstreamError("no", status=status, **more)


OPEN = ProviderOpenError("open", retry_after_seconds=9)
BUSY = ProviderBusyError("busy", retry_after_seconds=1)


@pytest.mark.usefixtures("no_jitter")
@pytest.mark.parametrize(
    ("error", "failures", "last", "patient_for", "pause"),
    [
        (failure(), 1, True, None, 1.0),
        (failure(), 3, True, None, None),
        (failure(400, retryable=False), 1, True, None, None),
        (failure(429, retry_after_seconds=7), 1, True, None, 7.0),
        (failure(429, retry_after_seconds=21), 1, True, None, None),
        (failure(429, retry_after_seconds=21), 1, True, 0.0, 21.0),
        (failure(429, retry_after_seconds=301), 1, True, 0.0, None),
        (OPEN, 1, True, None, None),
        (OPEN, 1, False, 0.0, None),
        (OPEN, 1, True, 0.0, 9.0),
        (BUSY, 50, True, 60.0, 1.0),
        (BUSY, 50, True, 4000.0, None),
    ],
)
def test_a_provider_is_asked_again_when_it_makes_sense(
    error: UpstreamError, failures: int, last: bool, patient_for: float | None, pause: float | None
) -> None:
    found = pause_before_retry(error, failures, retries=2, last=last, patient_for=patient_for)
    assert found == pause
