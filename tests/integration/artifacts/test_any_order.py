"""Whatever the order and the number of times that facts come, the same is kept in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.artifacts.domain import Query, blob_key
from services.artifacts.service import Keeper
from services.artifacts.store import PostgresRecords
from services.artifacts.tables import BLOBS
from services.kit.blobs.disk import DiskBlobs
from services.kit.blobs.store import BlobMissingError
from tests.integration.artifacts.conftest import giving
from tests.integration.artifacts.facts import Announcements, deleted, finished, image_item, png


@dataclass(frozen=True)
class Happening:
    """A fact about a response; `contents` of None is its deletion."""

    response: int
    attempt: int
    contents: tuple[str, ...] | None


RESPONSES, CONTENTS, ATTEMPTS = 3, "abcd", 2
# What a response holds after an attempt never changes: repeated facts are the same.
HISTORIES = st.dictionaries(
    st.tuples(st.integers(1, RESPONSES), st.integers(1, ATTEMPTS)),
    st.lists(st.sampled_from(CONTENTS), max_size=3).map(tuple),
    min_size=1,
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Happening]:
    """Draw facts in any order, each at least once."""
    history = draw(HISTORIES)
    facts = [
        Happening(response, attempt, contents) for (response, attempt), contents in history.items()
    ]
    gone = draw(st.sets(st.integers(1, RESPONSES)))
    facts += [Happening(response, 0, None) for response in gone]
    repeated = draw(st.lists(st.sampled_from(facts), max_size=6))
    return draw(st.permutations([*facts, *repeated]))


def expected(facts: Sequence[Happening]) -> set[tuple[int, int, str]]:
    """Return (response, position, content) of what must be kept: the rule, in its plainest form."""
    gone = {fact.response for fact in facts if fact.contents is None}
    last: dict[int, Happening] = {}
    for fact in facts:
        if fact.response not in gone and fact.attempt >= last.get(fact.response, fact).attempt:
            last[fact.response] = fact
    return {
        (fact.response, position, content)
        for fact in last.values()
        for position, content in enumerate(fact.contents or ())
    }


@given(facts=deliveries())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_order_and_duplication_of_facts_leaves_the_same_records_and_bytes(
    engine: AsyncEngine, blobs: DiskBlobs, facts: list[Happening]
) -> None:
    # Each example has responses and contents of its own, so none sees what another left.
    mark = uuid4().hex
    records = PostgresRecords(engine)
    keeper = Keeper(records, blobs, Announcements(), remember_deleted=timedelta(days=14))
    give = giving(keeper)

    for fact in facts:
        name = f"{mark}_{fact.response}"
        if fact.contents is None:
            await give(deleted(name))
        else:
            items = [image_item(png(mark + content)) for content in fact.contents]
            await give(finished(name, items, attempt=fact.attempt))

    hashes = {hashlib.sha256(png(mark + content)).hexdigest(): content for content in CONTENTS}
    kept = {
        (int(one.response_id.rpartition("_")[2]), one.position, hashes[one.sha256])
        for number in range(1, RESPONSES + 1)
        for one in await records.page(
            Query(project=None, limit=100, response_id=f"{mark}_{number}")
        )
    }
    assert kept == expected(facts)
    needed = {content for _, _, content in kept}
    assert await stored(blobs, hashes) == needed
    async with engine.connect() as connection:
        rows = await connection.execute(select(BLOBS).where(BLOBS.c.sha256.in_(hashes)))
        assert {(hashes[row.sha256], row.stored) for row in rows} == {(one, True) for one in needed}


async def stored(blobs: DiskBlobs, hashes: dict[str, str]) -> set[str]:
    found = set()
    for sha256, content in hashes.items():
        try:
            await blobs.get(blob_key(sha256))
            found.add(content)
        except BlobMissingError:
            continue
    return found
