"""What becomes of a batch: handled, retried, buried, or the end of the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from aiokafka.errors import KafkaConnectionError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from contracts.event import UnknownContractError
from contracts.responses import ResponseDeletedV1
from services.kit.batches import Batches, Handler, Received, Subscription
from services.kit.deadletters import Record, RefusalError
from services.kit.retry import Backoff
from tests.unit.kit.records import TOPIC, Graveyard, Message, message

AT_ONCE = Backoff(attempts=3, first_seconds=0.0, longest_seconds=0.0)


class Handling:
    """A handler that fails for some responses; `calls` are the ids of each batch."""

    def __init__(self, failures: dict[str, list[BaseException]] | None = None) -> None:
        self.calls: list[list[str]] = []
        self._failures = failures or {}

    async def __call__(self, batch: list[Received]) -> None:
        ids = [cast("ResponseDeletedV1", one.envelope.data).response_id for one in batch]
        self.calls.append(ids)
        for response_id in ids:
            if self._failures.get(response_id):
                raise self._failures[response_id].pop(0)


class ServerError(Exception):
    """A driver's error with the code that PostgreSQL gave."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(f"state {sqlstate}")
        self.sqlstate = sqlstate


def database_error(sqlstate: str | None) -> DBAPIError:
    return DBAPIError("INSERT", {}, ServerError(sqlstate))


async def run(handle: Handler, *messages: Message) -> Graveyard:
    graveyard = Graveyard()
    subscription = Subscription(
        topics=(TOPIC,),
        group="test",
        handle=handle,
        types=frozenset({ResponseDeletedV1.TYPE}),
        backoff=AT_ONCE,
    )
    await Batches(subscription, graveyard).handle(cast("tuple[Record, ...]", messages))
    return graveyard


async def test_a_good_batch_is_handled_at_once_and_in_order() -> None:
    handle = Handling()
    graveyard = await run(handle, message("a", 1), message("b", 2))
    assert handle.calls == [["a", "b"]]
    assert graveyard.offsets == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        None,
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"type": "antiphon.response.deleted.v9"}',
        b'{"type": ["antiphon.response.deleted.v1"]}',
        b'{"type": "antiphon.response.deleted.v1", "data": {"response_id": 7}}',
        b'{"type": "antiphon.response.deleted.v1", "data": {"response_id": "\\ud800"}}',
    ],
)
async def test_bytes_that_are_no_message_are_buried_and_their_neighbours_handled(
    value: bytes | None,
) -> None:
    handle = Handling()
    graveyard = await run(handle, message("a", 1), Message(value, 2), message("b", 3))
    assert graveyard.offsets == [2]
    assert handle.calls == [["a", "b"]]


async def test_messages_of_other_types_are_skipped() -> None:
    handle = Handling()
    subscription = Subscription(
        topics=(TOPIC,), group="test", handle=handle, types=frozenset({"other"})
    )
    await Batches(subscription, Graveyard()).handle(cast("tuple[Record, ...]", (message("a", 1),)))
    assert handle.calls == []


async def test_a_refused_message_is_buried_without_a_second_try_and_the_rest_is_handled() -> None:
    refusal = RefusalError("never")
    handle = Handling({"b": [refusal, refusal, refusal]})
    graveyard = await run(handle, message("a", 1), message("b", 2), message("c", 3))
    assert graveyard.buried == [(2, refusal, 1)]
    assert handle.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_a_message_that_shows_a_bug_is_buried_after_three_tries() -> None:
    bugs: list[BaseException] = [KeyError("x") for _ in range(4)]
    handle = Handling({"b": bugs})
    graveyard = await run(handle, message("a", 1), message("b", 2))
    assert [(offset, attempts) for offset, _, attempts in graveyard.buried] == [(2, 3)]
    assert handle.calls.count(["b"]) == 3


async def test_a_bug_that_does_not_come_again_costs_nobody_anything() -> None:
    handle = Handling({"a": [KeyError("x")]})
    graveyard = await run(handle, message("a", 1))
    assert graveyard.offsets == []
    assert handle.calls == [["a"], ["a"]]


@pytest.mark.parametrize(
    "outage",
    [
        OSError("disk"),
        TimeoutError(),
        KafkaConnectionError(),
        PoolTimeoutError("no connection is free"),
        database_error(None),
        database_error("08006"),
        database_error("57P01"),
        database_error("42P01"),
    ],
)
async def test_an_outage_is_waited_for(outage: BaseException) -> None:
    handle = Handling({"a": [outage, outage]})
    graveyard = await run(handle, message("a", 1))
    assert graveyard.offsets == []
    assert handle.calls == [["a"]] * 3


async def test_an_outage_that_does_not_end_raises_and_buries_nothing() -> None:
    handle = Handling({"a": [OSError("disk")] * 3})
    graveyard = Graveyard()
    with pytest.raises(OSError, match="disk"):
        await run(handle, message("a", 1), message("b", 2))
    assert graveyard.offsets == []


@pytest.mark.parametrize("sqlstate", ["22021", "22P05", "23502"])
async def test_a_value_that_the_database_refuses_is_a_dead_letter(sqlstate: str) -> None:
    handle = Handling({"b": [database_error(sqlstate) for _ in range(9)]})
    graveyard = await run(handle, message("a", 1), message("b", 2))
    assert graveyard.offsets == [2]
    assert ["a"] in handle.calls


async def test_a_dead_letter_that_can_not_be_written_is_tried_again_and_then_stops_all() -> None:
    tries: list[int] = []

    class Closed(Graveyard):
        async def bury(self, record: Record, error: BaseException, *, attempts: int = 1) -> None:
            tries.append(record.offset)
            raise KafkaConnectionError(record.offset, error, attempts)

    handle = Handling()
    subscription = Subscription(
        topics=(TOPIC,),
        group="test",
        handle=handle,
        types=frozenset({ResponseDeletedV1.TYPE}),
        backoff=AT_ONCE,
    )
    with pytest.raises(KafkaConnectionError):
        await Batches(subscription, Closed()).handle(
            cast("tuple[Record, ...]", (Message(b"poison", 1), message("a", 2)))
        )
    assert handle.calls == []
    assert tries == [1, 1, 1]


async def test_what_is_not_preselected_is_neither_decoded_nor_handled() -> None:
    asked: list[int] = []
    outages: list[BaseException] = [KafkaConnectionError("away"), OSError("away")]

    async def preselect(records: Sequence[Record]) -> Sequence[Record]:
        asked.append(len(records))
        if outages:
            raise outages.pop()
        return [record for record in records if b"resp_2" in (record.value or b"")]

    handling, graveyard = Handling(), Graveyard()
    subscription = Subscription(
        topics=(TOPIC,),
        group="test",
        handle=handling,
        types=frozenset({ResponseDeletedV1.TYPE}),
        backoff=AT_ONCE,
        preselect=preselect,
    )
    batch = (message("resp_1", 0), Message(b"no JSON", 1), message("resp_2", 2))
    await Batches(subscription, graveyard).handle(cast("tuple[Record, ...]", batch))
    assert handling.calls == [["resp_2"]]
    assert graveyard.offsets == []
    assert asked == [3, 3, 3]


def of_type(kind: str, offset: int) -> Message:
    said = message("r1", offset)
    assert said.value is not None
    said.value = said.value.replace(ResponseDeletedV1.TYPE.encode(), kind.encode())
    return said


async def test_a_type_that_this_version_does_not_know_is_a_dead_letter_and_stops_nobody() -> None:
    handle = Handling()
    buried = await run(handle, of_type("antiphon.response.deleted.v99", 1), message("r2", 2))
    assert handle.calls == [["r2"]]
    assert buried.offsets == [1]
    assert isinstance(buried.buried[0][1], UnknownContractError)


async def test_a_field_that_this_version_does_not_know_is_passed_over() -> None:
    handle, newer = Handling(), message("r1", 1)
    assert newer.value is not None
    newer.value = newer.value.replace(b'"data":{', b'"later":[1],"data":{"later":{"x":1},')
    assert (await run(handle, newer)).offsets == []
    assert handle.calls == [["r1"]]


async def test_who_can_pass_on_unknown_types_gets_them_and_no_others() -> None:
    handle, failures = Handling(), [OSError("away")]
    passed: list[int] = []

    async def unknown(records: Sequence[Record]) -> None:
        if failures:
            raise failures.pop()
        passed.extend(record.offset for record in records)

    graveyard = Graveyard()
    subscription = Subscription(
        topics=(TOPIC,),
        group="test",
        handle=handle,
        types=frozenset({ResponseDeletedV1.TYPE}),
        backoff=AT_ONCE,
        unknown=unknown,
    )
    records = (of_type("antiphon.response.run.v99", 1), message("r2", 2), Message(b"{", 3))
    await Batches(subscription, graveyard).handle(cast("tuple[Record, ...]", records))
    assert (passed, handle.calls, graveyard.offsets) == ([1], [["r2"]], [3])
