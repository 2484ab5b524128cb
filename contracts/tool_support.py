"""Whether a request's tools can be offered: intake warns by it, the worker runs by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from contracts.providers import ProviderConfig

WARNINGS_KEY = "antiphon_warnings"
"""The key of a response's metadata that says what was done otherwise than asked for."""
TOOLS_DROPPED = "tools_dropped: this model has no tools, the response was made without them"
MOST_METADATA = 16
"""Pairs that metadata may have: a response that has as many is warned of in the header alone."""


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What becomes of the tools: offered, dropped with a warning, or refused naming `param`."""

    verdict: Literal["offer", "drop", "refuse"]
    param: str = "tools"
    message: str = ""


_OFFER = ToolSupport("offer")
_DROP = ToolSupport("drop")


def tool_support(
    serving: Sequence[ProviderConfig], model: str, tools: object, tool_choice: Any
) -> ToolSupport:
    """Judge a request by the providers that serve its model, in order; tools of MCP are tools.

    As long as one of them has tools the others are not asked. Else the first one's policy holds,
    and a choice that demands a tool is refused in any case.
    """
    if not tools or not serving or any(provider.has_tools(model) for provider in serving):
        return _OFFER
    if _demands(tool_choice):
        return ToolSupport(
            "refuse",
            param="tool_choice",
            message="This model does not support tools, and 'tool_choice' demands one.",
        )
    if serving[0].on_unsupported_tools == "refuse":
        return ToolSupport("refuse", message="This model does not support tools.")
    return _DROP


def _demands(choice: Any) -> bool:
    if isinstance(choice, dict):
        return choice.get("type") != "allowed_tools" or choice.get("mode") == "required"
    return choice not in (None, "auto", "none")
