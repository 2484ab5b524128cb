"""Two turns with a real model through the OpenAI client, streamed to the terminal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response

from infra.cli.output import out
from infra.local.errors import StackError

QUESTIONS = (
    "What is the capital of France?",
    "Which river flows through that city?",
)
MAX_OUTPUT_TOKENS = 1000
COST_TIMEOUT_S = 20.0
COST_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Turn:
    """One answered question."""

    response: Response
    events: int
    first_event_s: float
    total_s: float


async def ask(
    client: AsyncOpenAI, model: str, question: str, *, previous_response_id: str | None
) -> Turn:
    """Stream one answer to the terminal; raises StackError when it doesn't complete."""
    out.print(f"\n[bold cyan]you[/bold cyan]    {question}")
    out.print("[bold green]model[/bold green]  ", end="")
    began_s = time.monotonic()
    first_event_s, events = 0.0, 0
    final: Response | None = None
    answer = await client.responses.create(
        model=model,
        input=question,
        stream=True,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        previous_response_id=previous_response_id,
    )
    async with answer as stream:
        async for event in stream:
            events += 1
            first_event_s = first_event_s or time.monotonic() - began_s
            if event.type == "response.output_text.delta":
                out.print(event.delta, end="", markup=False)
                out.file.flush()
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                final = event.response
    out.print()
    if final is None or final.status == "failed":
        reason = final.error.message if final and final.error else "the stream ended early"
        raise StackError(
            f"The model gave no answer: {reason}", fix="Read the log with `antiphon logs worker`"
        )
    turn = Turn(final, events, first_event_s, time.monotonic() - began_s)
    _show(turn)
    return turn


def _show(turn: Turn) -> None:
    usage = turn.response.usage
    tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out" if usage else "no usage"
    out.print(
        f"       [dim]{turn.response.id}  {turn.events} events, {tokens}, first event after "
        f"{turn.first_event_s * 1000:.0f} ms, {turn.total_s:.1f} s in all[/dim]"
    )


async def cost(client: AsyncOpenAI, response_id: str) -> str:
    """Say what a response cost; raises StackError when the ledger doesn't hear of it in time.

    Costs follow a response through Kafka, so they arrive a moment after the answer.
    """
    path = f"/costs?group_by=model&response_id={response_id}"
    deadline_s = time.monotonic() + COST_TIMEOUT_S
    while time.monotonic() < deadline_s:
        report = await client.get(path, cast_to=dict[str, Any])
        if report["data"]:
            return cost_sentence(report["total"])
        await asyncio.sleep(COST_POLL_S)
    raise StackError(
        f"The ledger has no costs of {response_id} after {COST_TIMEOUT_S:.0f} s",
        fix="Read the log with `antiphon logs costs`",
    )


def cost_sentence(sums: dict[str, Any]) -> str:
    """Put sums of the ledger into words; what has no price is named, never shown as free."""
    amount = sums["cost_usd"]
    if amount is None:
        return "unpriced (the price book does not know this model)"
    priced = f"{Decimal(amount):f} USD"
    unpriced = sums["unpriced_lines"]
    return f"{priced} and {unpriced} lines without a price" if unpriced else priced
