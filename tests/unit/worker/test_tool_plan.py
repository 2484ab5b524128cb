"""Which tools run here, what the model calls them, and what nobody can run."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.tools import McpServerDiscoveredV1, McpTool
from services.worker.errors import RequestRefusedError
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan, plan_tools

FUNCTION = {"type": "function", "name": "echo", "parameters": {}}


def server(label: str, *tools: str, status: Any = "ready") -> McpServerDiscoveredV1:
    return McpServerDiscoveredV1(
        server_label=label,
        transport="stdio",
        status=status,
        tools=[McpTool(name=tool, input_schema={"type": "object"}) for tool in tools],
        error=None if status == "ready" else "it does not start",
    )


def planned(
    tools: list[dict[str, Any]],
    *servers: McpServerDiscoveredV1,
    hosted: frozenset[str] = frozenset(),
    dialect: str = "chat",
) -> ToolPlan:
    known = {one.server_label: one for one in servers}
    return plan_tools(tools, hosted=hosted, dialect=dialect, server=known.get)


def refused(tools: list[dict[str, Any]], *servers: McpServerDiscoveredV1) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        planned(tools, *servers)
    return caught.value


def mcp(label: str, **fields: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": label, **fields}


def test_tools_of_our_servers_are_offered_as_functions() -> None:
    plan = planned([mcp("srv"), FUNCTION], server("srv", "add", "mul"))
    assert [tool["name"] for tool in plan.offered] == ["add", "mul", "echo"]
    assert plan.mcp == {"add": ("srv", "add"), "mul": ("srv", "mul")}
    assert plan.runs_here


def test_a_request_without_our_tools_does_not_run_here() -> None:
    assert not planned([FUNCTION]).runs_here


@pytest.mark.parametrize("allowed", [["add"], {"tool_names": ["add"]}])
def test_only_allowed_tools_are_offered(allowed: Any) -> None:
    plan = planned([mcp("srv", allowed_tools=allowed)], server("srv", "add", "mul"))
    assert list(plan.mcp) == ["add"]
    assert [tool.name for tool in plan.servers[0].tools] == ["add"]


@pytest.mark.parametrize("allowed", [5, "add", {"tool_names": 7}])
def test_allowed_tools_of_another_shape_are_refused_by_name(allowed: Any) -> None:
    error = refused([FUNCTION, mcp("srv", allowed_tools=allowed)], server("srv", "add"))
    assert error.param == "tools[1].allowed_tools"


def test_a_name_that_is_taken_gets_the_label_before_it() -> None:
    plan = planned([FUNCTION, mcp("a"), mcp("b")], server("a", "echo"), server("b", "echo"))
    assert set(plan.mcp.values()) == {("a", "echo"), ("b", "echo")}
    assert "echo" not in plan.mcp


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b b"]), st.text(min_size=1, max_size=80)), max_size=6)
)
def test_every_tool_gets_a_name_that_functions_may_have(tools: list[tuple[str, str]]) -> None:
    by_label: dict[str, list[str]] = {}
    for label, tool in tools:
        if tool not in by_label.setdefault(label, []):
            by_label[label].append(tool)
    servers = [server(label, *names) for label, names in by_label.items()]
    plan = planned([mcp(label) for label in by_label], *servers)
    assert len(plan.mcp) == sum(map(len, by_label.values()))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in plan.mcp)


def test_a_server_that_is_away_is_refused_with_its_reason() -> None:
    error = refused([mcp("srv")], server("srv", status="unavailable"))
    assert (error.param, error.code) == ("tools[0].server_label", "mcp_server_unavailable")
    assert "it does not start" in error.message


def test_a_server_that_nobody_has_is_refused_unless_the_provider_hosts_mcp() -> None:
    assert refused([mcp("other")]).code == "mcp_server_not_found"
    plan = planned([mcp("other")], hosted=frozenset({"mcp"}))
    assert plan.offered == [mcp("other")]


def test_a_hosted_tool_goes_to_a_provider_that_has_it_and_to_no_other() -> None:
    tool = {"type": "web_search"}
    assert planned([tool], hosted=frozenset({"web_search"})).offered == [tool]
    assert planned([tool], dialect="responses").offered == [tool]
    assert refused([tool]).param == "tools[0].type"


def test_the_same_call_has_the_same_id_and_another_one_another() -> None:
    one = McpCall("srv", "echo", "{}", 0)
    assert one.call_id("resp_1") == McpCall("srv", "echo", "{}", 0).call_id("resp_1")
    others = [
        one.call_id("resp_2"),
        McpCall("srv", "echo", "{}", 1).call_id("resp_1"),
        McpCall("srv", "echo", "{ }", 0).call_id("resp_1"),
        McpCall("srv", "add", "{}", 0).call_id("resp_1"),
    ]
    assert len({one.call_id("resp_1"), *others}) == 5
