"""What becomes of tools that no provider of the model can offer: told at the acceptance."""

from __future__ import annotations

from typing import Any

from contracts.providers import Providers
from contracts.tool_support import TOOLS_DROPPED, tool_support
from services.intake.errors import invalid

Headers = tuple[tuple[bytes, bytes], ...]
_DROPPED: Headers = ((b"warnings", TOOLS_DROPPED.encode()),)


def warnings_about_tools(providers: Providers, model: str, document: dict[str, Any]) -> Headers:
    """Return the headers that say what the worker will leave out of a request, none as a rule.

    Raises `ApiError` (400) where the installation's policy, or the request itself, forbids that.
    """
    tools, choice = document.get("tools"), document.get("tool_choice")
    support = tool_support(providers.serving(model), model, tools, choice)
    if support.verdict == "refuse":
        raise invalid(support.message, param=support.param, code="unsupported_parameter")
    return _DROPPED if support.verdict == "drop" else ()
