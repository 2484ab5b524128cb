"""Calls for the tests, as a worker would ask for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.principal import Principal
from contracts.tools import CallMcpToolV1
from services.kit.codec import dumps
from services.kit.ids import new_id


def command(
    tool: str = "echo", arguments: dict[str, Any] | str = "{}", *, label: str = "traces",
    partition: int = 3, seconds: float = 30,
) -> CallMcpToolV1:  # fmt: skip
    """Return a call with fresh ids whose deadline is so many seconds away."""
    return CallMcpToolV1(
        call_id=new_id("call"),
        response_id=new_id("resp"),
        principal=Principal(project="tests", key_id="key_tests"),
        server_label=label,
        tool=tool,
        arguments=arguments if isinstance(arguments, str) else dumps(arguments).decode(),
        reply_partition=partition,
        deadline=datetime.now(UTC) + timedelta(seconds=seconds),
    )
