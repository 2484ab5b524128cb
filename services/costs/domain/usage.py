"""What a Response object says it used: tokens by class, and calls of the provider's own tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.costs.errors import UsageError

MAX_TOKENS = 1_000_000_000
"""No response uses more: a larger figure is a mistake of whoever reported it."""

_HOSTED_TOOLS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}
"""Output items of tools that the provider runs and charges. Calls of MCP tools are not among them:
they are charged from their results. Functions, shells and computers run at the client's."""

_FREE_WEB_ACTIONS = frozenset({"open_page", "find", "find_in_page"})
"""Only searches are charged: https://developers.openai.com/api/docs/guides/tools-web-search"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens as the Responses API counts them: the totals contain their details."""

    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int

    @classmethod
    def of(cls, response: Mapping[str, Any]) -> TokenUsage | None:
        """Read `usage`; None when the provider reported none. Raises `UsageError`."""
        usage = response.get("usage")
        if usage is None:
            return None
        if not isinstance(usage, Mapping):
            raise UsageError("usage is not an object")
        into, out = (
            _details(usage, "input_tokens_details"),
            _details(usage, "output_tokens_details"),
        )
        found = cls(
            input_tokens=_count(usage, "input_tokens"),
            cached_tokens=_count(into, "cached_tokens"),
            cache_write_tokens=_count(into, "cache_write_tokens"),
            output_tokens=_count(usage, "output_tokens"),
            reasoning_tokens=_count(out, "reasoning_tokens"),
        )
        if found.cached_tokens + found.cache_write_tokens > found.input_tokens:
            raise UsageError("usage counts more cached tokens than input tokens")
        if found.reasoning_tokens > found.output_tokens:
            raise UsageError("usage counts more reasoning tokens than output tokens")
        return found


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = usage.get(name)
    if details is None:
        return {}
    if not isinstance(details, Mapping):
        raise UsageError(f"usage.{name} is not an object")
    return details


def _count(figures: Mapping[str, Any], name: str) -> int:
    value = figures.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
        raise UsageError(f"usage gives {value!r:.40} for {name}")
    return value


@dataclass(frozen=True, slots=True)
class HostedCall:
    """One charge for a tool that the provider ran; `call_id` is unique within its response."""

    call_id: str
    tool: str


def hosted_calls(response: Mapping[str, Any]) -> Iterator[HostedCall]:
    """Yield what the provider charges for its tools, each once.

    Code interpreters are charged by container, however often one is called.
    """
    seen: set[str] = set()
    preview = _offers_only_preview(response)
    for position, item in enumerate(_objects(response.get("output"))):
        tool = _HOSTED_TOOLS.get(str(item.get("type")))
        if tool is None or item.get("status") == "failed":
            continue
        if tool == "web_search":
            action = item.get("action")
            if isinstance(action, Mapping) and action.get("type") in _FREE_WEB_ACTIONS:
                continue
            tool = "web_search_preview" if preview else tool
        charged = item.get("container_id") if tool == "code_interpreter" else None
        call_id = str(charged or item.get("id") or f"{tool}_{position}")
        if call_id not in seen:
            seen.add(call_id)
            yield HostedCall(call_id, tool)


def _offers_only_preview(response: Mapping[str, Any]) -> bool:
    # The items of the older tool are the same, its price is not.
    offered = {str(tool.get("type")) for tool in _objects(response.get("tools"))}
    searching = {name for name in offered if name.startswith("web_search")}
    return bool(searching) and all(name.startswith("web_search_preview") for name in searching)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
