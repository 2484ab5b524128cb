"""Rate limits of keys: how much each has used lately, and what running responses reserved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "intake"
_NOW = sa.text("now()")

# The rule is services/intake/admission/limits.py, word for word; a test compares the two. All
# requests of a key are judged under the lock of its row, keys in one order so that nobody waits in
# a circle. What a crash of the database forgets is a moment's use: commits wait for no disk.
_TAKE = """
CREATE FUNCTION intake.take_limits(
    key_ids text[], response_ids text[], costs bigint[], request_limits bigint[],
    token_limits bigint[]
) RETURNS TABLE (place bigint, admitted boolean, requests double precision, tokens double precision)
LANGUAGE plpgsql AS $$
DECLARE
    ask record;
    held record;
    moment timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR ask IN
        SELECT *,
            lag(given.key_id) OVER judged IS DISTINCT FROM given.key_id AS first_of_key,
            lead(given.key_id) OVER judged IS DISTINCT FROM given.key_id AS last_of_key
        FROM unnest(key_ids, response_ids, costs, request_limits, token_limits)
            WITH ORDINALITY AS given(key_id, response_id, cost, request_limit, token_limit, place)
        WINDOW judged AS (ORDER BY given.key_id, given.place)
        ORDER BY given.key_id, given.place
    LOOP
        IF ask.first_of_key THEN
            INSERT INTO intake.limit_use (key_id) VALUES (ask.key_id) ON CONFLICT DO NOTHING;
            SELECT used.* INTO held
                FROM intake.limit_use AS used WHERE used.key_id = ask.key_id FOR UPDATE;
            moment := clock_timestamp();
            requests := CASE WHEN ask.request_limit IS NULL THEN 0 ELSE greatest(0, held.requests
                - ask.request_limit * intake.limit_seconds(held.requests_at, moment) / 60) END;
            tokens := CASE WHEN ask.token_limit IS NULL THEN 0 ELSE greatest(0, held.tokens
                - ask.token_limit * intake.limit_seconds(held.tokens_at, moment) / 60) END;
        END IF;
        place := ask.place;
        admitted := ask.response_id IS NULL OR (
            (ask.request_limit IS NULL OR requests + 1 <= ask.request_limit + 1e-6)
            AND (ask.token_limit IS NULL OR tokens + ask.cost <= ask.token_limit + 1e-6)
        );
        IF admitted AND ask.response_id IS NOT NULL THEN
            requests := CASE WHEN ask.request_limit IS NULL THEN 0 ELSE requests + 1 END;
            tokens := CASE WHEN ask.token_limit IS NULL THEN 0 ELSE tokens + ask.cost END;
            IF ask.token_limit IS NOT NULL THEN
                INSERT INTO intake.limit_reservations AS reserved
                    (response_id, key_id, tokens, reserved_at)
                    VALUES (ask.response_id, ask.key_id, ask.cost, moment)
                    ON CONFLICT (response_id)
                    DO UPDATE SET tokens = reserved.tokens + excluded.tokens;
            END IF;
        END IF;
        IF ask.last_of_key THEN
            UPDATE intake.limit_use AS used SET
                requests = take_limits.requests,
                requests_at = greatest(used.requests_at, moment),
                tokens = take_limits.tokens,
                tokens_at = greatest(used.tokens_at, moment)
                WHERE used.key_id = ask.key_id;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$
"""
_SECONDS = """
CREATE FUNCTION intake.limit_seconds(since timestamptz, moment timestamptz)
RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(0, extract(epoch FROM moment - since))::double precision
$$
"""
_SETTLE = """
CREATE FUNCTION intake.settle_limits(
    response_ids text[], key_ids text[], used_tokens bigint[], token_limits bigint[],
    debt_minutes double precision
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    given record;
    held record;
    bucket record;
    moment timestamptz;
    added double precision;
    level double precision;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR given IN
        SELECT * FROM unnest(response_ids, key_ids, used_tokens, token_limits)
            AS one(response_id, key_id, used, token_limit)
        ORDER BY one.key_id, one.response_id
    LOOP
        DELETE FROM intake.limit_reservations AS reserved
            WHERE reserved.response_id = given.response_id AND reserved.key_id = given.key_id
            RETURNING reserved.tokens, reserved.reserved_at INTO held;
        CONTINUE WHEN NOT FOUND OR given.used IS NULL;
        SELECT tokens, tokens_at INTO bucket FROM intake.limit_use
            WHERE key_id = given.key_id FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        moment := clock_timestamp();
        IF given.used >= held.tokens THEN
            added := given.used - held.tokens;
        ELSE
            added := -least(held.tokens - given.used, greatest(0, held.tokens
                - given.token_limit * intake.limit_seconds(held.reserved_at, moment) / 60));
        END IF;
        level := greatest(0, bucket.tokens
            - given.token_limit * intake.limit_seconds(bucket.tokens_at, moment) / 60);
        UPDATE intake.limit_use SET
            tokens = least(greatest(0, level + added),
                           greatest(level, given.token_limit * (1 + debt_minutes))),
            tokens_at = greatest(tokens_at, moment)
            WHERE key_id = given.key_id;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "limit_use",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("requests", sa.Double, nullable=False, server_default="0"),
        sa.Column("requests_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("tokens", sa.Double, nullable=False, server_default="0"),
        sa.Column("tokens_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
        schema=SCHEMA,
    )
    op.create_table(
        "limit_reservations",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("reserved_at", sa.TIMESTAMP(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    # A row is written anew with each batch: with room beside it, it stays on its page.
    op.execute("ALTER TABLE intake.limit_use SET (fillfactor = 30)")
    for function in (_SECONDS, _TAKE, _SETTLE):
        op.execute(function)


def downgrade() -> None:
    for function in ("settle_limits", "take_limits", "limit_seconds"):
        op.execute(f"DROP FUNCTION intake.{function}")
    for table in ("limit_reservations", "limit_use"):
        op.drop_table(table, schema=SCHEMA)
