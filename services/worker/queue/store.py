"""The queue on PostgreSQL: parked rows of `worker.leases`, and who takes which of them when."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.worker.leases.rules import Claim, CommandPlace
from services.worker.queue.rules import NORMAL, PATIENT, URGENT, Parked, QueueBounds, Taken

_LOCK = 0x71756575
_MOST_CANCELLED = 100
_OF_MANY = 4
_MOST_LANES = 500

# The attempt stays: what is parked again after a crash is taken as the next one.
_PARK = text("""
    INSERT INTO worker.leases AS held
        (response_id, attempt, state, owner, expires_at, command_partition, command_offset,
         key_id, priority, queued_at, head)
    SELECT id, 0, 'parked', '', 'infinity', place, at, key_id, priority, queued_at, head
    FROM unnest(
        CAST(:ids AS text[]), CAST(:places AS int[]), CAST(:offsets AS bigint[]),
        CAST(:keys AS text[]), CAST(:priorities AS smallint[]),
        CAST(:accepted AS timestamptz[]), CAST(:heads AS text[])
    ) AS command(id, place, at, key_id, priority, queued_at, head)
    ORDER BY id
    ON CONFLICT (response_id) DO UPDATE SET
        state = 'parked', expires_at = 'infinity', command_partition = excluded.command_partition,
        command_offset = excluded.command_offset, key_id = excluded.key_id,
        priority = excluded.priority, queued_at = excluded.queued_at, head = excluded.head,
        resent = 0
    WHERE held.state = 'abandoned' OR (held.state = 'running' AND held.expires_at < now())
""")
_PARK_EXPIRED = text("""
    UPDATE worker.leases AS held SET state = 'parked', expires_at = 'infinity'
    FROM (
        SELECT response_id FROM worker.leases
        WHERE state = 'running' AND priority IS NOT NULL AND expires_at < now()
        LIMIT :most FOR UPDATE SKIP LOCKED
    ) AS expired
    WHERE held.response_id = expired.response_id
    RETURNING held.response_id
""")
# The workers take in turn, so that the bound per key holds for all of them together. One that
# hangs while it is its turn is cut off by the server.
_MY_TURN = text("""
    SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
           pg_try_advisory_xact_lock(:lock) AS mine
""")
# A lane is what one key has of one priority. Lanes are found by one step in the index each, so many
# of each priority, from where the last one was taken on and then from the first. Of each lane only
# so many rows are read as could start, and few where there are more lanes than room: the cost grows
# neither with the queue nor with the number of keys.
_TAKE = text("""
    WITH RECURSIVE begin AS (
        SELECT * FROM unnest(CAST(:priorities AS smallint[]), CAST(:afters AS text[]))
            AS given(priority, after)
    ), ahead AS (
        SELECT begin.priority, first.key_id, 1 AS number FROM begin, LATERAL (
            SELECT key_id FROM worker.leases
            WHERE state = 'parked' AND priority = begin.priority AND key_id > begin.after
            ORDER BY key_id LIMIT 1
        ) AS first
        UNION ALL
        SELECT ahead.priority, next.key_id, ahead.number + 1 FROM ahead, LATERAL (
            SELECT key_id FROM worker.leases
            WHERE state = 'parked' AND priority = ahead.priority AND key_id > ahead.key_id
            ORDER BY key_id LIMIT 1
        ) AS next
        WHERE ahead.number < :most_lanes
    ), behind AS (
        SELECT begin.priority, begin.after, first.key_id, (
            SELECT count(*) FROM ahead WHERE ahead.priority = begin.priority
        ) + 1 AS number
        FROM begin, LATERAL (
            SELECT key_id FROM worker.leases
            WHERE state = 'parked' AND priority = begin.priority AND key_id <= begin.after
            ORDER BY key_id LIMIT 1
        ) AS first
        UNION ALL
        SELECT behind.priority, behind.after, next.key_id, behind.number + 1
        FROM behind, LATERAL (
            SELECT key_id FROM worker.leases
            WHERE state = 'parked' AND priority = behind.priority
                AND key_id > behind.key_id AND key_id <= behind.after
            ORDER BY key_id LIMIT 1
        ) AS next
        WHERE behind.number < :most_lanes
    ), lanes AS (
        SELECT priority, key_id FROM ahead
        UNION ALL
        SELECT priority, key_id FROM behind WHERE number <= :most_lanes
    ), busy AS (
        SELECT key_id, count(*) AS running FROM worker.leases
        WHERE state = 'running' AND priority IS NOT NULL GROUP BY key_id
    ), open_lanes AS (
        SELECT priority, key_id, coalesce(busy.running, 0) AS running,
            count(*) OVER (PARTITION BY priority) AS beside
        FROM lanes LEFT JOIN busy USING (key_id) WHERE coalesce(busy.running, 0) < :per_key
    ), waiting AS (
        SELECT parked.response_id, parked.queued_at, lane.key_id,
            CASE WHEN parked.queued_at < now() - make_interval(secs => :overdue_seconds)
                THEN 0 ELSE lane.priority END AS rank,
            lane.running
        FROM open_lanes AS lane, LATERAL (
            SELECT response_id, queued_at FROM worker.leases
            WHERE state = 'parked' AND NOT cancelled
                AND priority = lane.priority AND key_id = lane.key_id
            ORDER BY queued_at
            LIMIT least(
                :room, :per_key - lane.running,
                CASE WHEN lane.beside < :room THEN :room ELSE :of_many END
            )
        ) AS parked
    ), turns AS (
        SELECT response_id, queued_at, rank, running + row_number() OVER (
            PARTITION BY key_id ORDER BY rank, queued_at, response_id
        ) AS turn FROM waiting
    ), chosen AS (
        (SELECT response_id FROM turns WHERE turn <= :per_key
         ORDER BY rank, turn, queued_at, response_id LIMIT :room)
        UNION ALL
        (SELECT response_id FROM worker.leases WHERE state = 'parked' AND cancelled
         LIMIT :most_cancelled)
    ), mine AS (
        SELECT response_id FROM worker.leases
        WHERE response_id IN (SELECT response_id FROM chosen) AND state = 'parked'
        FOR UPDATE SKIP LOCKED
    )
    UPDATE worker.leases AS held SET
        state = 'running', attempt = held.attempt + 1, owner = :owner,
        expires_at = now() + make_interval(secs => :seconds),
        first_claimed_at = CASE WHEN held.attempt = 0 THEN now() ELSE held.first_claimed_at END
    FROM mine WHERE held.response_id = mine.response_id
    RETURNING held.response_id, held.attempt, held.cancelled, held.command_partition,
        held.command_offset, held.priority, held.queued_at, held.head, held.handovers,
        held.first_claimed_at, held.key_id
""")
_DEPTH = text("""
    SELECT count(*) FROM (
        SELECT FROM worker.leases WHERE state = 'parked' LIMIT 100000
    ) AS parked
""")


class QueueStore:
    """The queue of all workers; `owner` and `seconds` are those of this worker's leases."""

    def __init__(self, engine: AsyncEngine, *, owner: str, seconds: float) -> None:
        self._engine = engine
        self._owner = owner
        self._seconds = seconds
        self._afters = dict.fromkeys((URGENT, NORMAL, PATIENT), "")

    async def park(self, commands: Sequence[Parked]) -> None:
        """Let responses wait for their turn. Idempotent: one that waits, runs or ended stays so."""
        unique = list({command.place.response_id: command for command in commands}.values())
        async with self._engine.begin() as connection:
            await connection.execute(
                _PARK,
                {
                    "ids": [one.place.response_id for one in unique],
                    "places": [one.place.partition for one in unique],
                    "offsets": [one.place.offset for one in unique],
                    "keys": [one.key_id for one in unique],
                    "priorities": [one.priority for one in unique],
                    "accepted": [one.accepted_at for one in unique],
                    "heads": [one.head for one in unique],
                },
            )

    async def park_expired(self, *, most: int) -> list[str]:
        """Put up to `most` responses back whose worker let its lease expire; return their ids."""
        async with self._engine.begin() as connection:
            rows = await connection.execute(_PARK_EXPIRED, {"most": most})
            return [row.response_id for row in rows]

    async def take(self, *, room: int, bounds: QueueBounds) -> list[Taken] | None:
        """Lease up to `room` responses to this worker, and some that were cancelled, which need no
        room; the most urgent first. None while another worker takes: ask again soon.

        By priority, then the key with the fewest running, then by age. Where more than 500 keys
        wait these take turns, and the order is among those whose turn it is.
        """
        async with self._engine.begin() as connection:
            turn = (await connection.execute(_MY_TURN, {"lock": _LOCK})).one()
            if not turn.mine:
                return None
            rows = await connection.execute(
                _TAKE,
                {
                    "room": room,
                    "per_key": bounds.per_key,
                    "overdue_seconds": bounds.overdue_seconds,
                    "most_cancelled": _MOST_CANCELLED,
                    "of_many": _OF_MANY,
                    "priorities": list(self._afters),
                    "afters": list(self._afters.values()),
                    "most_lanes": _MOST_LANES,
                    "owner": self._owner,
                    "seconds": self._seconds,
                },
            )
            found = sorted(rows, key=lambda row: (row.priority, row.queued_at))
        for row in found:
            if row.priority in self._afters:
                self._afters[row.priority] = row.key_id
        return [
            Taken(
                CommandPlace(row.response_id, row.command_partition, row.command_offset),
                Claim(
                    row.attempt,
                    row.cancelled,
                    handovers=row.handovers,
                    since=row.first_claimed_at,
                ),
                row.head,
            )
            for row in found
        ]

    async def depth(self) -> int:
        """Count what waits, up to 100,000."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(_DEPTH)).scalar_one())
