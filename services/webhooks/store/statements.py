"""The statements of the queue that are clearer in SQL."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

# Endpoints that may get something now, those first that have waited longest. The lock keeps other
# instances from filling the same endpoint beyond its bound; they take the next one.
TURNS = sa.text("""
    SELECT e.id FROM webhooks.endpoints e
    WHERE e.enabled AND (e.paused_until IS NULL OR e.paused_until <= :now)
      AND EXISTS (
        SELECT FROM webhooks.deliveries d
        WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.due_at <= :now
      )
      AND (
        SELECT count(*) FROM webhooks.deliveries d
        WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.leased AND d.due_at > :now
      ) < CASE WHEN e.failures >= :trip THEN 1 ELSE :each END
    ORDER BY e.claimed_at NULLS FIRST
    LIMIT :most
    FOR NO KEY UPDATE OF e SKIP LOCKED
""")

# One delivery for each of them, then the second ones, until there are enough.
CLAIM = sa.text("""
    WITH due AS (
      SELECT d.id, row_number() OVER (PARTITION BY d.endpoint_id ORDER BY d.due_at) AS turn
      FROM webhooks.endpoints e
      CROSS JOIN LATERAL (
        SELECT id, endpoint_id, due_at FROM webhooks.deliveries
        WHERE endpoint_id = e.id AND state = 'pending' AND due_at <= :now
        ORDER BY due_at
        LIMIT greatest(0, CASE WHEN e.failures >= :trip THEN 1 ELSE :each END - (
          SELECT count(*) FROM webhooks.deliveries b
          WHERE b.endpoint_id = e.id AND b.state = 'pending' AND b.leased AND b.due_at > :now
        ))
        FOR UPDATE SKIP LOCKED
      ) d
      WHERE e.id = ANY(:turns)
    ), chosen AS (SELECT id FROM due ORDER BY turn LIMIT :most
    ), claimed AS (
      UPDATE webhooks.deliveries d
      SET leased = true, due_at = :lease_until, attempts = d.attempts + 1
      FROM chosen WHERE d.id = chosen.id
      RETURNING d.id AS delivery_id, d.endpoint_id, d.event_id, d.event_type, d.response_id,
        d.occurred_at, d.first_due_at, d.attempts
    ), served AS (
      UPDATE webhooks.endpoints SET claimed_at = :now
      WHERE id IN (SELECT endpoint_id FROM claimed) RETURNING *
    )
    SELECT * FROM claimed JOIN served ON served.id = claimed.endpoint_id
""").bindparams(sa.bindparam("turns", type_=ARRAY(sa.Text)))

# What worked counts also when the lease had gone to another, who will then find nothing to settle.
SETTLE = sa.text("""
    UPDATE webhooks.deliveries d
    SET state = o.state, leased = false, due_at = coalesce(o.retry_at, d.due_at),
      finished_at = o.finished_at,
      last_attempts = jsonb_path_query_array(
        d.last_attempts, '$[last - $kept + 1 to last]', jsonb_build_object('kept', :kept)
      ) || o.shown
    FROM jsonb_to_recordset(:outcomes) AS o(
      id text, attempt int, state text, retry_at timestamptz, finished_at timestamptz, shown jsonb
    )
    WHERE d.id = o.id AND d.state = 'pending'
      AND (o.state = 'delivered' OR (d.leased AND d.attempts = o.attempt))
""").bindparams(sa.bindparam("outcomes", type_=JSONB), sa.bindparam("kept", type_=sa.Integer))
