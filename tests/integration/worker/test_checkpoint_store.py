"""Checkpoints on the real PostgreSQL: only the present attempt writes, and the end removes them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.blobs.disk import DiskBlobs
from services.worker.checkpoints.saver import Checkpoints
from services.worker.checkpoints.state import Boundary, Detached, PendingCall, Row, decode, encode
from services.worker.checkpoints.store import CheckpointStore
from services.worker.errors import LeaseLostError
from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.rules import CommandPlace
from tests.integration.worker.test_leases import claim, expire
from tests.integration.worker.test_leases import store as leases

BOUND_S = 20.0


async def kept(engine: AsyncEngine) -> dict[str, int]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT response_id, attempt FROM worker.checkpoints"))
        return {row.response_id: row.attempt for row in rows}


def boundary(**changed: object) -> Boundary:
    fields: dict[str, object] = {
        "provider": "a",
        "created_at": 1,
        "next_number": 9,
        "turns": 1,
        "output": [{"id": "mcp_1", "type": "mcp_call"}],
        "pending": [PendingCall(0, "call_1")],
        "usage": {"input_tokens": 3},
        "changed": {"tool_choice": None},
    }
    return Boundary(**{**fields, **changed})  # type: ignore[arg-type]  # any of its fields


@pytest.mark.parametrize(
    "state",
    [boundary(), Detached(provider="a", upstream_id="resp_x", exact=True, asked_at=1.5)],
)
def test_a_state_is_read_as_it_was_written(state: Boundary | Detached) -> None:
    assert decode(encode(state)) == state


@pytest.mark.parametrize("raw", [b'{"kind": "newer"}', b'{"kind": "boundary", "x": 1}', b"{}"])
def test_what_another_version_wrote_is_passed_over(raw: bytes) -> None:
    assert decode(raw) is None


async def test_only_the_attempt_that_has_the_lease_writes(engine: AsyncEngine) -> None:
    store = CheckpointStore(engine)
    assert await claim(leases(engine), "r1", "r2") == {"r1": 1, "r2": 1}
    rows = [Row("r1", 1, b"one"), Row("r2", 1, b"two"), Row("r3", 1, b"nobody's")]
    assert await store.save(rows) == {"r1", "r2"}
    await expire(engine, "r1")
    assert await claim(leases(engine, "b"), "r1") == {"r1": 2}
    assert await store.save([Row("r1", 1, b"late"), Row("r2", 1, b"three")]) == {"r2"}
    assert await store.take_over("r1", 2) == b"one"
    assert await store.take_over("r2", 1) == b"three"
    with pytest.raises(LeaseLostError):
        await store.take_over("r1", 1)


async def test_an_attempt_that_took_over_shuts_the_one_before_out(engine: AsyncEngine) -> None:
    store = CheckpointStore(engine)
    await claim(leases(engine), "r1")
    await store.save([Row("r1", 1, b"one")])
    await expire(engine, "r1")
    await claim(leases(engine, "b"), "r1")
    assert await store.take_over("r1", 2) == b"one"
    # As if the statement of the first attempt had seen its lease before that was lost.
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE worker.leases SET attempt = 1"))
    assert await store.save([Row("r1", 1, b"late")]) == set()
    assert await kept(engine) == {"r1": 2}


async def test_what_ended_has_no_checkpoint_any_more_and_others_keep_theirs(
    engine: AsyncEngine,
) -> None:
    store, by = CheckpointStore(engine), leases(engine)
    await claim(by, "r1", "r2", "r3")
    await store.save([Row(one, 1, b"x") for one in ("r1", "r2", "r3")])
    await expire(engine, "r3")
    await claim(leases(engine, "b"), "r3")
    await by.finish([("r1", 1), ("r3", 1)], checkpointed=["r1", "r3"])
    assert await kept(engine) == {"r2": 1, "r3": 1}


async def test_what_is_forgotten_loses_its_checkpoint_too(engine: AsyncEngine) -> None:
    by = leases(engine)
    await claim(by, "r1", "r2")
    await CheckpointStore(engine).save([Row("r1", 1, b"x"), Row("r2", 1, b"x")])
    await by.finish([("r1", 1)])
    async with engine.begin() as connection:
        await connection.execute(
            text("UPDATE worker.leases SET created_at = now() - interval '9 days'")
        )
    assert await by.forget(days=8, most=10) == 1
    assert await kept(engine) == {"r2": 1}


async def test_many_are_written_together_and_large_ones_by_reference(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    written: list[str] = []
    blobs = DiskBlobs(tmp_path)
    checkpoints = Checkpoints(CheckpointStore(engine), blobs, on_written=written.append)
    ids = [f"r{number}" for number in range(30)]
    await claim(leases(engine), *ids)
    large = boundary(carried=[{"text": "x" * 600_000}])
    states = {one: large if one == "r7" else boundary(turns=n) for n, one in enumerate(ids)}
    await asyncio.gather(*(checkpoints.save(one, 1, state) for one, state in states.items()))
    assert sorted(written) == sorted(ids)
    async with engine.connect() as connection:
        size = text("SELECT max(length(state)) FROM worker.checkpoints")
        assert (await connection.execute(size)).scalar_one() < 1_000
    for one, state in states.items():
        assert await checkpoints.take_over(one, 1) == state


async def test_one_that_lost_its_lease_hears_of_it(engine: AsyncEngine, tmp_path: Path) -> None:
    checkpoints = Checkpoints(
        CheckpointStore(engine), DiskBlobs(tmp_path), on_written=lambda _: None
    )
    await claim(leases(engine), "r1")
    saved = await asyncio.gather(
        checkpoints.save("r1", 1, boundary()),
        checkpoints.save("r2", 1, boundary()),
        return_exceptions=True,
    )
    assert saved[0] is None
    assert isinstance(saved[1], LeaseLostError)


def fatal(error: BaseException) -> None:
    raise AssertionError from error


async def test_a_lease_that_was_not_renewed_in_time_is_not_sure_until_the_database_says_so(
    engine: AsyncEngine,
) -> None:
    keeper = LeaseKeeper(leases(engine, seconds=30), seconds=30, on_fatal=fatal)
    await keeper.claim([CommandPlace("r1", 0, 1), CommandPlace("r2", 0, 2)])
    assert keeper.sure("r1", 1)
    assert not keeper.sure("r1", 2)
    # As if this process had stood still for a minute.
    keeper.hold({"r1": 1, "r2": 1}, since=time.monotonic() - 60)
    assert not keeper.sure("r1", 1)
    await expire(engine, "r1", "r2")
    assert await claim(leases(engine, "b"), "r2") == {"r2": 2}
    lost: list[str] = []
    keeper.on_lost = lost.append
    await keeper.start()
    async with asyncio.timeout(BOUND_S):
        sure = await asyncio.gather(keeper.confirm("r1", 1), keeper.confirm("r2", 1))
    assert list(sure) == [True, False]
    assert keeper.sure("r1", 1)
    assert lost == ["r2"]
    await keeper.stop()


async def test_the_end_of_a_response_takes_its_checkpoint_along(engine: AsyncEngine) -> None:
    keeper = LeaseKeeper(leases(engine), seconds=60, on_fatal=fatal)
    await keeper.claim([CommandPlace("r1", 0, 1), CommandPlace("r2", 0, 2)])
    await CheckpointStore(engine).save([Row("r1", 1, b"x")])
    keeper.checkpointed("r1")
    keeper.finish("r1", 1)
    keeper.finish("r2", 1)
    await keeper.stop()
    assert await kept(engine) == {}
