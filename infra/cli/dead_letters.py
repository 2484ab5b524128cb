"""`antiphon dlq`: look at messages that could not be handled, send them again or let them go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from infra import dead_letters
from infra.cli.output import out, show, table_of
from infra.cli.topics import bootstrap
from infra.local.errors import StackError
from infra.local.settings import LocalSettings

Result = TypeVar("Result")
_SHOWN_BYTES = 2_000


def list_waiting() -> int:
    """List the topics and how many of their messages wait as dead letters."""
    table = table_of("topic", "waiting", "ever written")
    for count in _run(dead_letters.waiting(_bootstrap())):
        table.add_row(count.topic, str(count.waiting), str(count.written))
    show(table)
    return 0


def show_letters(topic: str, /, *, most: int = 10, stack: bool = False) -> int:
    """Show the oldest dead letters of a topic that wait, with the reason of each.

    Parameters
    ----------
    topic
        The topic the messages were for, such as `responses.lifecycle`.
    most
        How many to show.
    stack
        Show where in the code it went wrong, too.
    """
    for letter in _run(dead_letters.show(_bootstrap(), topic, most=most)):
        when = datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC).isoformat(" ", "seconds")
        about = letter.about
        out.print(f"[bold]{letter.offset}[/bold]  {when}  key {letter.key!r}")
        place = f"{about.get('topic')}[{about.get('partition')}]@{about.get('offset')}"
        out.print(f"  from {place}, {about.get('service')}, attempts {about.get('attempts')}")
        out.print(f"  {about.get('reason')}", markup=False)
        if stack:
            out.print(about.get("stack", ""), markup=False)
        value = letter.value or b""
        cut = "" if len(value) <= _SHOWN_BYTES else f" ... {len(value)} bytes in all"
        out.print(f"  {value[:_SHOWN_BYTES]!r}{cut}", markup=False)
    return 0


def retry(topic: str, /, *, most: int = 1_000) -> int:
    """Send the oldest waiting dead letters of a topic again, as they were.

    Parameters
    ----------
    topic
        The topic the messages were for.
    most
        How many to send.
    """
    count = _run(dead_letters.retry(_bootstrap(), topic, most=most))
    out.print(f"{count} sent to {topic} again")
    return 0


def drop(topic: str, /, *, most: int) -> int:
    """Let the oldest waiting dead letters of a topic go without sending them again.

    Parameters
    ----------
    topic
        The topic the messages were for.
    most
        How many to let go; they stay readable until the topic's retention ends.
    """
    count = _run(dead_letters.drop(_bootstrap(), topic, most=most))
    out.print(f"{count} dead letters of {topic} wait no more")
    return 0


def _bootstrap() -> str:
    return bootstrap(LocalSettings.load())


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except dead_letters.UnknownTopicError as error:
        raise StackError(f"There is {error}", fix="Name one of these") from error
    except KafkaError as error:
        raise StackError(
            f"Kafka does not answer: {error}", fix="Look at `antiphon status`"
        ) from error
