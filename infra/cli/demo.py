"""`antiphon demo`: a real model answers two questions through the whole system."""

from __future__ import annotations

import asyncio

from openai import APIError, AsyncOpenAI

from infra.cli.conversation import QUESTIONS, Turn, ask, cost
from infra.cli.output import Progress, out
from infra.cli.up import admin_key
from infra.local.errors import StackError
from infra.local.foreground import run_stack, until_interrupted
from infra.local.settings import LocalSettings
from infra.local.stack import Stack
from infra.local.state import State, running

TIMEOUT_S = 180.0


def demo(*, once: bool = False) -> int:
    """Ask a real model a question and a follow-up through Kafka, and show what that made.

    It uses OpenAI when OPENAI_API_KEY is set, else the small model on this machine. A stack that
    already runs is used and left running.

    Parameters
    ----------
    once
        End after the answers; without it the stack goes on serving until Ctrl-C.
    """
    settings = LocalSettings.load()
    status = running(settings.home)
    if status is None:

        async def body(stack: Stack) -> int:
            await _converse(settings, stack.settings.url, stack.admin_key, stack.upstream.model)
            if once:
                return 0
            out.print("\nServing until Ctrl-C.")
            return await until_interrupted(stack)

        return run_stack(settings, Progress(), body)
    if status.overall is not State.READY:
        raise StackError(
            f"The running stack is {status.overall}", fix="Wait until `antiphon status` says ready"
        )
    out.print(f"Using the stack that runs at {status.url}.")
    asyncio.run(_converse(settings, status.url, admin_key(settings), status.model))
    return 0


async def _converse(settings: LocalSettings, url: str, key: str, model: str | None) -> None:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, timeout=TIMEOUT_S, max_retries=0)
    async with client:
        try:
            model = model or settings.demo_model or await _first_model(client)
            out.print(f"\n[bold]Antiphon is ready[/bold] at {url}/v1, the model is {model}.")
            first = await ask(client, model, QUESTIONS[0], previous_response_id=None)
            second = await ask(client, model, QUESTIONS[1], previous_response_id=first.response.id)
            for turn in (first, second):
                await _show_cost(client, turn)
        except APIError as error:
            raise StackError(
                f"{url} refused the question: {error.message}",
                fix="Read the logs with `antiphon logs intake` and `antiphon logs worker`",
            ) from error
    out.print(next_steps(url, key, model, second.response.id), markup=False)


async def _show_cost(client: AsyncOpenAI, turn: Turn) -> None:
    out.print(f"cost of {turn.response.id}: {await cost(client, turn.response.id)}")


async def _first_model(client: AsyncOpenAI) -> str:
    async for model in client.models.list():
        return model.id
    raise StackError(
        "The upstream names no models", fix="Say which one to ask with DEMO_MODEL=<name>"
    )


def next_steps(url: str, key: str, model: str, response_id: str) -> str:
    """What to try now, ready to be pasted."""
    return f"""
Where to look next

  curl {url}/v1/responses -H 'authorization: Bearer {key}' \\
    -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "input": "Say hello.", "stream": true}}'

  curl '{url}/v1/costs?group_by=model' -H 'authorization: Bearer {key}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  print(client.responses.retrieve("{response_id}").output_text)
  print(client.responses.create(
      model="{model}", input="And its population?", previous_response_id="{response_id}"
  ).output_text)

  antiphon status, antiphon logs worker: what runs and what it says (in .venv/bin, or by make)
"""
