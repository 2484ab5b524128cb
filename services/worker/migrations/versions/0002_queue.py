"""Background responses that wait are parked leases, with what decides their turn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "worker"
CHECK = "leases_state_check"


def upgrade() -> None:
    op.add_column("leases", sa.Column("key_id", sa.Text), schema=SCHEMA)
    op.add_column("leases", sa.Column("priority", sa.SmallInteger), schema=SCHEMA)
    op.add_column("leases", sa.Column("queued_at", sa.TIMESTAMP(timezone=True)), schema=SCHEMA)
    op.add_column("leases", sa.Column("head", sa.Text), schema=SCHEMA)
    op.drop_constraint(CHECK, "leases", schema=SCHEMA, type_="check")
    op.create_check_constraint(
        CHECK,
        "leases",
        "state IN ('parked', 'running', 'abandoned', 'finished')",
        schema=SCHEMA,
    )
    parked = sa.text("state = 'parked'")
    op.create_index(
        "leases_parked_idx",
        "leases",
        ["priority", "key_id", "queued_at"],
        schema=SCHEMA,
        postgresql_where=parked,
    )
    op.create_index(
        "leases_parked_cancelled_idx",
        "leases",
        ["response_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'parked' AND cancelled"),
    )
    op.create_index(
        "leases_background_idx",
        "leases",
        ["key_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'running' AND priority IS NOT NULL"),
    )


def downgrade() -> None:
    # What waits is for the old rules a lease that expired: its command is sent again.
    op.execute(
        "UPDATE worker.leases SET state = 'abandoned', expires_at = now() WHERE state = 'parked'"
    )
    for index in ("leases_background_idx", "leases_parked_cancelled_idx", "leases_parked_idx"):
        op.drop_index(index, "leases", schema=SCHEMA)
    op.drop_constraint(CHECK, "leases", schema=SCHEMA, type_="check")
    op.create_check_constraint(
        CHECK, "leases", "state IN ('running', 'abandoned', 'finished')", schema=SCHEMA
    )
    for column in ("head", "queued_at", "priority", "key_id"):
        op.drop_column("leases", column, schema=SCHEMA)
