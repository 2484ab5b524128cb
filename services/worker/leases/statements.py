"""What is said to PostgreSQL about leases; `store` says what each statement is for."""

from __future__ import annotations

from sqlalchemy import bindparam, text

# All times are the database's: workers' clocks may differ or jump.
# The two statements of every batch go to asyncpg directly, the others are rare.
CLAIM = """
    INSERT INTO worker.leases AS held
        (response_id, attempt, state, owner, expires_at, command_partition, command_offset,
         first_claimed_at)
    SELECT id, 1, 'running', $1, now() + make_interval(secs => $2), place, at, now()
    FROM unnest($3::text[], $4::int[], $5::bigint[]) AS command(id, place, at)
    ORDER BY id
    ON CONFLICT (response_id) DO UPDATE SET
        attempt = held.attempt + 1, state = 'running', owner = excluded.owner,
        expires_at = excluded.expires_at, command_partition = excluded.command_partition,
        command_offset = excluded.command_offset, resent = 0,
        first_claimed_at = CASE WHEN held.attempt = 0
            THEN excluded.first_claimed_at ELSE held.first_claimed_at END
    WHERE held.state = 'abandoned' OR (held.state = 'running' AND held.expires_at < now())
    RETURNING response_id, attempt, cancelled, handovers, first_claimed_at
"""
FINISH = """
    UPDATE worker.leases AS held SET state = 'finished'
    FROM unnest($1::text[], $2::int[]) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt
"""
# Few responses have a checkpoint: the others' statement stays as it is.
FINISH_WITH_CHECKPOINTS = """
    WITH finished AS (
        UPDATE worker.leases AS held SET state = 'finished'
        FROM unnest($1::text[], $2::int[]) AS mine(id, attempt)
        WHERE held.response_id = mine.id AND held.attempt = mine.attempt
        RETURNING held.response_id
    )
    DELETE FROM worker.checkpoints AS kept USING finished
    WHERE kept.response_id = finished.response_id AND kept.response_id = ANY($3::text[])
"""
CANCEL = text("""
    INSERT INTO worker.leases AS held (response_id, attempt, state, owner, expires_at, cancelled)
    SELECT id, 0, 'abandoned', '', 'infinity', true FROM unnest(CAST(:ids AS text[])) AS id
    ON CONFLICT (response_id) DO UPDATE SET cancelled = true WHERE held.state <> 'finished'
""")
RENEW = text("""
    UPDATE worker.leases AS held SET expires_at = now() + make_interval(secs => :seconds)
    FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[])) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt AND held.state = 'running'
    RETURNING held.response_id, held.cancelled
""")
# What comes from the queue waits there again; the command of anything else must be sent again.
RELEASE = text("""
    UPDATE worker.leases AS held SET
        state = CASE WHEN held.priority IS NULL THEN 'abandoned' ELSE 'parked' END,
        expires_at = CASE WHEN held.priority IS NULL
            THEN now() + make_interval(secs => :again_after_seconds) ELSE 'infinity' END,
        handovers = least(held.handovers + :handovers, :most_handovers)
    FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[])) AS mine(id, attempt)
    WHERE held.response_id = mine.id AND held.attempt = mine.attempt AND held.state = 'running'
    RETURNING held.response_id, held.command_partition, held.command_offset, held.state
""")
ABANDON = text("""
    UPDATE worker.leases AS held
    SET state = 'abandoned', expires_at = now() + make_interval(secs => :again_after_seconds)
    FROM (
        SELECT response_id FROM worker.leases
        WHERE state <> 'finished' AND expires_at < now()
            AND (priority IS NULL OR state = 'abandoned')
        ORDER BY expires_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) AS expired
    WHERE held.response_id = expired.response_id
    RETURNING held.response_id, held.command_partition, held.command_offset, held.resent
""")
RESENT = text("""
    UPDATE worker.leases SET resent = resent + 1,
        expires_at = now() + make_interval(secs => :again_after_seconds * 2 ^ least(resent, :most))
    WHERE response_id = ANY(:ids) AND state = 'abandoned'
""")
END = text("""
    UPDATE worker.leases SET state = 'finished'
    WHERE response_id = ANY(:ids) AND state = 'abandoned'
""")
EXPECT = text("""
    INSERT INTO worker.leases AS held
        (response_id, attempt, state, owner, expires_at, command_partition, command_offset)
    SELECT id, 0, 'abandoned', '', now() + make_interval(secs => :after_seconds), place, at
    FROM unnest(
        CAST(:ids AS text[]), CAST(:places AS int[]), CAST(:offsets AS bigint[])
    ) AS command(id, place, at)
    ORDER BY id
    ON CONFLICT (response_id) DO UPDATE SET expires_at = excluded.expires_at,
        command_partition = excluded.command_partition, command_offset = excluded.command_offset
    WHERE held.state = 'abandoned' AND held.command_offset IS NULL
""")
FORGET = text("""
    WITH forgotten AS (
        DELETE FROM worker.leases WHERE response_id IN (
            SELECT response_id FROM worker.leases
            WHERE (state = 'finished' OR (state = 'abandoned' AND expires_at = 'infinity'))
                AND created_at < now() - make_interval(days => :days)
            LIMIT :most
        )
        RETURNING response_id
    ), orphans AS (
        DELETE FROM worker.checkpoints WHERE response_id IN (SELECT response_id FROM forgotten)
    )
    SELECT count(*) FROM forgotten
""").bindparams(bindparam("days"), bindparam("most"))
