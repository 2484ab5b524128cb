"""What responses leave behind: bytes of each topic in Kafka, rows and bytes in PostgreSQL."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import asyncpg

_STATISTICS = """
SELECT tup_inserted + tup_updated + tup_deleted AS rows, xact_commit AS commits,
       pg_database_size(datname) AS bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal_bytes
FROM pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """A reading; of differences everything since the earlier one."""

    kafka_bytes: dict[str, int]
    rows: int
    commits: int
    database_bytes: int
    wal_bytes: int

    def since(self, before: Footprint) -> Footprint:
        """Give what came since an earlier reading."""
        topics = {
            topic: size - before.kafka_bytes.get(topic, 0)
            for topic, size in self.kafka_bytes.items()
        }
        return Footprint(
            {topic: size for topic, size in topics.items() if size},
            self.rows - before.rows,
            self.commits - before.commits,
            self.database_bytes - before.database_bytes,
            self.wal_bytes - before.wal_bytes,
        )


def topic_bytes(data: Path) -> dict[str, int]:
    """Add up the log segments of each topic in a broker's data folder."""
    sizes: Counter[str] = Counter()
    for segment in data.glob("*-*/*.log"):
        topic = segment.parent.name.rpartition("-")[0]
        sizes[topic] += segment.stat().st_size
    return dict(sizes)


async def read_footprint(kafka_data: Path, database_url: str) -> Footprint:
    """Read both now; what services have not committed yet is not in it."""
    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetchrow(_STATISTICS)
    finally:
        await connection.close()
    assert found is not None
    return Footprint(
        topic_bytes(kafka_data),
        found["rows"],
        found["commits"],
        found["bytes"],
        found["wal_bytes"],
    )
