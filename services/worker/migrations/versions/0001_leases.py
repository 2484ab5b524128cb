"""The leases: one row per accepted command."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "worker"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("command_partition", sa.Integer),
        sa.Column("command_offset", sa.BigInteger),
        sa.Column("cancelled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
        ),
        sa.CheckConstraint(
            "state IN ('running', 'abandoned', 'finished')", name="leases_state_check"
        ),
        schema=SCHEMA,
    )
    # The sweeper looks only at what is open, which is little; the clean-up at what is old.
    op.create_index(
        "leases_open_idx",
        "leases",
        ["expires_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state <> 'finished'"),
    )
    op.create_index("leases_created_at_idx", "leases", ["created_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("leases", schema=SCHEMA)
