"""The pack codec, with whatever bytes there may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.packs import HEAD_BYTES, MAGIC, Entry, Flag, PackError, decode_pack, encode_pack

UINT32 = 2**32 - 1
entries = st.builds(
    Entry,
    response_id=st.binary(max_size=255),
    attempt=st.integers(0, UINT32),
    index=st.integers(0, UINT32),
    payload=st.binary(max_size=300),
    flags=st.integers(0, 255),
    status=st.integers(0, 65_535),
)
packs = st.lists(entries, max_size=6)


def decoded(pack: bytes) -> list[Entry] | None:
    """Return the entries of a pack, nothing for a broken one; other errors are the test's."""
    try:
        return list(decode_pack(pack))
    except PackError:
        return None


@given(packs)
def test_any_entries_survive_a_round_trip(some: list[Entry]) -> None:
    assert list(decode_pack(encode_pack(some))) == some


@given(packs, st.data())
def test_a_truncated_pack_is_an_error_or_a_shorter_pack(
    some: list[Entry], data: st.DataObject
) -> None:
    pack = encode_pack(some)
    result = decoded(pack[: data.draw(st.integers(0, len(pack)))])
    assert result is None or result == some[: len(result)]


@given(packs, st.data())
def test_a_flipped_bit_is_an_error_or_gives_whole_entries(
    some: list[Entry], data: st.DataObject
) -> None:
    pack = bytearray(encode_pack(some))
    at = data.draw(st.integers(0, len(pack) * 8 - 1))
    pack[at // 8] ^= 1 << at % 8
    result = decoded(bytes(pack))
    assert result is None or encode_pack(result) == pack


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_are_an_error_or_whole_entries(noise: bytes) -> None:
    result = decoded(MAGIC + noise)
    assert result is None or encode_pack(result) == MAGIC + noise


@given(st.binary(max_size=20))
def test_bytes_without_the_magic_are_no_pack(noise: bytes) -> None:
    if not noise.startswith(MAGIC):
        with pytest.raises(PackError, match="magic"):
            list(decode_pack(noise))


@given(packs, packs)
def test_packs_can_be_joined_behind_one_magic(some: list[Entry], more: list[Entry]) -> None:
    joined = encode_pack(some) + encode_pack(more).removeprefix(MAGIC)
    assert list(decode_pack(joined)) == [*some, *more]


def test_entries_before_the_broken_one_are_yielded_first() -> None:
    whole = Entry(b"resp_1", 1, 0, b"data: 1\n\n")
    reader = decode_pack(encode_pack([whole, whole])[:-1])
    assert next(reader) == whole
    with pytest.raises(PackError, match="truncated entry payload"):
        next(reader)


def test_a_head_that_is_cut_is_an_error() -> None:
    pack = encode_pack([Entry(b"resp_1", 1, 0, b"")])
    with pytest.raises(PackError, match="truncated entry head"):
        list(decode_pack(pack[: len(MAGIC) + HEAD_BYTES - 1]))


def test_the_layout_is_the_documented_one() -> None:
    entry = Entry(b"ab", 0x01020304, 0x05060708, b"xyz", Flag.LAST | Flag.JSON, 429)
    assert encode_pack([entry]) == (
        b"AP1\n" + bytes.fromhex("02 01020304 05060708 01ad 03 00000003") + b"abxyz"
    )
