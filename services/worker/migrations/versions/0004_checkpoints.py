"""Checkpoints: how far a response has come that a later attempt goes on from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "worker"


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("written_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("state", sa.LargeBinary),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("checkpoints", schema=SCHEMA)
