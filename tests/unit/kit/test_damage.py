"""Batches whose bytes were damaged: what comes in their place, and what stands around them."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from services.kit.damage import unpack_enduringly

PLACE = TopicPartition("responses.commands", 3)
BASE_OFFSET_BYTES = 8


def batch(base: int, values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for offset, value in enumerate(values):
        assert builder.append(offset, timestamp=1_000, key=None, value=value, headers=[])
    made = bytes(builder.build())
    # The offset of a batch is not part of its checksum: brokers write it.
    return base.to_bytes(BASE_OFFSET_BYTES, "big") + made[BASE_OFFSET_BYTES:]


def unpacked(data: bytes, *, at: int = 0) -> tuple[list[tuple[int, bytes]], int]:
    records: Any = PartitionRecords(
        PLACE,
        MemoryRecords(data),
        aborted_transactions=None,
        fetch_offset=at,
        key_deserializer=None,
        value_deserializer=None,
        check_crcs=True,
        isolation_level=0,
    )
    unpack_enduringly(records)
    found = [(record.offset, record.value) for record in records]
    return found, records.next_fetch_offset


def damaged(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 0xFF]) + data[-1:]


def test_what_is_whole_comes_as_it_is() -> None:
    data = batch(0, [b"a", b"b"]) + batch(2, [b"c"])
    assert unpacked(data) == ([(0, b"a"), (1, b"b"), (2, b"c")], 3)


def test_a_damaged_batch_is_one_record_that_names_what_is_lost() -> None:
    data = batch(5, [b"a"]) + damaged(batch(6, [b"b", b"c", b"d"])) + batch(9, [b"e"])
    found, after = unpacked(data, at=5)
    assert [offset for offset, _ in found] == [5, 8, 9]
    assert found[1][1] == b"damaged: responses.commands[3] is damaged from 6 to 8"
    assert after == 10


def test_only_what_was_not_read_yet_is_lost() -> None:
    found, after = unpacked(damaged(batch(6, [b"b", b"c", b"d"])), at=8)
    assert found == [(8, b"damaged: responses.commands[3] is damaged from 8 to 8")]
    assert after == 9


def test_a_damaged_length_is_not_believed() -> None:
    whole = batch(6, [b"b"])
    # The number of the last offset stands 23 bytes behind the start of a batch.
    data = whole[:23] + (-5).to_bytes(4, "big", signed=True) + whole[27:]
    found, after = unpacked(data, at=6)
    assert [offset for offset, _ in found] == [6]
    assert after == 7


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    hurt=st.sets(st.integers(0, 5)),
)
def test_whatever_is_damaged_all_else_comes_in_order(sizes: list[int], hurt: set[int]) -> None:
    data, offset, wanted = b"", 0, []
    for number, size in enumerate(sizes):
        values = [b"%d" % (offset + one) for one in range(size)]
        made = batch(offset, values)
        if number in hurt:
            data += damaged(made)
        else:
            data += made
            wanted += [(offset + one, values[one]) for one in range(size)]
        offset += size
    found, after = unpacked(data)
    assert [one for one in found if not one[1].startswith(b"damaged")] == wanted
    assert len(found) == len(wanted) + len(hurt & set(range(len(sizes))))
    assert after == offset
