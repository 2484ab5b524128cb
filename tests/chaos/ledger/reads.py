"""What the API and the upstream tell after a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import ClientSession

from tests.chaos.ledger.evidence import (
    Call,
    Evidence,
    Execution,
    Json,
    Read,
    StoredArtifact,
    turn_of,
)

CONCURRENCY = 12
_MODEL_PATHS = ("/v1/responses", "/v1/chat/completions")
Thing = TypeVar("Thing")


class Api:
    """Reads of the stack's intakes, a dozen at a time."""

    def __init__(self, http: ClientSession, intakes: Sequence[str]) -> None:
        self._http = http
        self._intakes = [one.rstrip("/") for one in intakes]

    async def responses(self, ids: Iterable[str], evidence: Evidence) -> None:
        """Read each response at every intake."""

        async def read(response_id: str) -> None:
            evidence.reads[response_id] = [
                Read(intake, *await self._get(f"{intake}/v1/responses/{response_id}"))
                for intake in self._intakes
            ]

        await _all(ids, read)

    async def artifacts(self, rows: Iterable[Any], evidence: Evidence) -> None:
        """Download each artifact."""

        async def download(row: Any) -> None:
            path = f"{self._intakes[0]}/v1/artifacts/{row[0]}/content"
            async with self._http.get(path) as answer:
                content = await answer.read()
            artifact_id, response_id, digest, size = row
            found = StoredArtifact(
                artifact_id=artifact_id,
                response_id=response_id,
                sha256=digest,
                size_bytes=size,
                status=answer.status,
                content_sha256=sha256(content).hexdigest(),
                content_bytes=len(content),
            )
            evidence.artifacts.append(found)

        await _all(rows, download)

    async def costs(self, evidence: Evidence) -> None:
        """Read the sum of all costs."""
        _, body = await self._get(f"{self._intakes[0]}/v1/costs?group_by=project")
        total = ((body or {}).get("total") or {}).get("cost_usd")
        evidence.costs_reported = Decimal(total) if total is not None else Decimal(0)

    async def _get(self, url: str) -> tuple[int, Json | None]:
        async with self._http.get(url) as answer:
            body = await answer.read()
        try:
            return answer.status, orjson.loads(body)
        except orjson.JSONDecodeError:
            return answer.status, None


async def _all(things: Iterable[Thing], act: Callable[[Thing], Awaitable[None]]) -> None:
    waiting = iter(list(things))

    async def work() -> None:
        for thing in waiting:
            await act(thing)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def gather_calls(http: ClientSession, control_url: str, evidence: Evidence) -> None:
    """Fill in the calls of models that the scripted upstream saw."""
    async with http.get(f"{control_url.rstrip('/')}/_requests") as answer:
        exchanges = orjson.loads(await answer.read())
    for exchange in exchanges:
        if exchange["method"] == "POST" and exchange["path"] in _MODEL_PATHS:
            call = call_of(exchange)
            if call is not None:
                evidence.calls.append(call)


def call_of(exchange: Json) -> Call | None:
    """Return an exchange as the rules see it; None when no request of a load led to it."""
    body = exchange["body"]
    mark, turn, outputs = turn_of(body) if isinstance(body, dict) else (None, 0, ())
    if mark is None:
        return None
    took = exchange["duration_s"]
    return Call(
        mark=mark,
        turn=turn,
        at=exchange["at"],
        ended=None if took is None else exchange["at"] + took,
        status=exchange["status"],
        finished=exchange["finished"],
        events=exchange["events_sent"],
        outputs=outputs,
    )


def gather_executions(file: Path, run: str, evidence: Evidence) -> None:
    """Fill in the runs of the counting tool that belong to a load."""
    begun: dict[str, Execution] = {}
    lines = file.read_bytes().splitlines() if file.exists() else []
    for line in map(orjson.loads, lines):
        if not line["key"].startswith(f"mark{run}-"):
            continue
        name = line["execution"]
        if line["what"] == "begun":
            begun[name] = Execution(line["key"], name, line["at"], None)
        else:
            first = begun[name]
            begun[name] = Execution(first.key, name, first.begun, line["at"])
    evidence.executions = list(begun.values())
