"""Idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "idempotency_keys",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("body_sha256", sa.LargeBinary, nullable=False),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("events_partition", sa.Integer, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("attempted_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
        sa.Column("published", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        schema=SCHEMA,
    )
    # What is too old is found by its age.
    op.create_index(
        "idempotency_keys_created_idx", "idempotency_keys", ["created_at"], schema=SCHEMA
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys", schema=SCHEMA)
