"""`antiphon dlq`: look at messages that could not be handled, send them again or let them go."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import orjson
from aiokafka.errors import KafkaError
from cyclopts import Parameter

from infra import dead_letters
from infra.cli.output import out, show, table_of
from infra.cli.topics import bootstrap
from infra.local.errors import StackError
from infra.local.settings import LocalSettings
from services.kit.letterbox import TooScatteredError

Result = TypeVar("Result")
_SHOWN_BYTES = 2_000


def list_waiting(*, json: bool = False) -> int:
    """List the topics and how many of their messages wait as dead letters.

    Parameters
    ----------
    json
        Print one JSON array instead of a table.
    """
    counts = _run(dead_letters.waiting(_bootstrap()))
    if json:
        _print_json([vars(count) for count in counts])
        return 0
    table = table_of("topic", "waiting", "ever written")
    for count in counts:
        table.add_row(count.topic, str(count.waiting), str(count.written))
    show(table)
    return 0


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which letters are meant; without any, all that wait.

    Parameters
    ----------
    number
        The letter's number, as `show` prints it; may be given several times.
    reason
        A part of the reason, in any case.
    service
        The service that could not handle the message.
    key
        The message's key.
    """

    number: Annotated[tuple[int, ...], Parameter(negative="")] = ()
    reason: str | None = None
    service: str | None = None
    key: str | None = None

    def wanted(self) -> dead_letters.Wanted:
        """Return them as what they ask for."""
        return dead_letters.Wanted(frozenset(self.number), self.reason, self.service, self.key)


_ANY = Filters()
Chosen = Annotated[Filters, Parameter(name="*")]


def show_letters(
    topic: str,
    /,
    *,
    most: int = 10,
    stack: bool = False,
    json: bool = False,
    filters: Chosen = _ANY,
) -> int:
    """Show the oldest dead letters of a topic that wait, with the reason of each.

    Parameters
    ----------
    topic
        The topic the messages were for, such as `responses.lifecycle`.
    most
        How many to show.
    stack
        Show where in the code it went wrong, too.
    json
        Print one JSON object a line, with everything; bytes are in base64.
    """
    asked = dead_letters.show(_bootstrap(), topic, most=most, wanted=filters.wanted())
    for letter in _run(asked):
        if json:
            _print_json(_plain(letter))
        else:
            _print(letter, stack=stack)
    return 0


def retry(topic: str, /, *, most: int = 1_000, filters: Chosen = _ANY) -> int:
    """Send the oldest waiting dead letters of a topic again, as they were.

    Parameters
    ----------
    topic
        The topic the messages were for.
    most
        How many to send.
    """
    asked = dead_letters.retry(_bootstrap(), topic, most=most, wanted=filters.wanted())
    out.print(f"{_run(asked)} sent to {topic} again")
    return 0


def drop(topic: str, /, *, most: int, filters: Chosen = _ANY) -> int:
    """Let the oldest waiting dead letters of a topic go without sending them again.

    Parameters
    ----------
    topic
        The topic the messages were for.
    most
        How many to let go; they stay readable until the topic's retention ends.
    """
    asked = dead_letters.drop(_bootstrap(), topic, most=most, wanted=filters.wanted())
    out.print(f"{_run(asked)} dead letters of {topic} wait no more")
    return 0


def _print(letter: dead_letters.Letter, *, stack: bool) -> None:
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


def _plain(letter: dead_letters.Letter) -> dict[str, Any]:
    return {
        "number": letter.offset,
        "timestamp_ms": letter.timestamp_ms,
        "key": _base64(letter.key),
        "value": _base64(letter.value),
        "headers": [[name, _base64(value)] for name, value in letter.headers],
        "about": letter.about,
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _print_json(value: object) -> None:
    out.print(orjson.dumps(value).decode(), markup=False)


def _bootstrap() -> str:
    return bootstrap(LocalSettings.load())


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except dead_letters.UnknownTopicError as error:
        raise StackError(f"There is {error}", fix="Name one of these") from error
    except TooScatteredError as error:
        raise StackError(str(error), fix="Leave the filters out, or drop the oldest") from error
    except KafkaError as error:
        raise StackError(
            f"Kafka does not answer: {error}", fix="Look at `antiphon status`"
        ) from error
