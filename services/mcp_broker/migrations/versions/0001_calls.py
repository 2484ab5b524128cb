"""The record of tool calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "mcp_broker"


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("call_id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("command", sa.LargeBinary, nullable=False),
        sa.Column("traceparent", sa.Text),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("reply_partition", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('running', 'finished', 'answered')", name="calls_state"),
        schema=SCHEMA,
    )
    op.create_index(
        "calls_open_idx",
        "calls",
        ["lease_expires_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state <> 'answered'"),
    )
    op.create_index(
        "calls_answered_idx",
        "calls",
        ["finished_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'answered'"),
    )


def downgrade() -> None:
    op.drop_table("calls", schema=SCHEMA)
